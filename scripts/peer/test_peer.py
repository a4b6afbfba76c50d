"""What of the comparison needs neither PyTorch nor a GPU: `python3 scripts/peer/test_peer.py`. EXPO
names the program for what needs it."""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import compare
import pretrained
import programs
import rows
import shapes
import table
import wheels
from options import arguments
from settings import of_trl

HERE = Path(__file__).parent
ON_GPU = ["--device", "cuda", "--dtypes", "bf16", "--shapes", "2.8b", "--batches", "64"]
FOUND = {"memory": 150 * 10**9, "attention": "sdpa", "missing": {}}
WHERE = {"shape": "2.8b", "batch": 64, "dtype": "bf16"}


def given(*words: str):
    args = arguments([*ON_GPU, *words])
    args.expo, args.path, args.deadline = "expo", None, float("inf")
    return args


def order(args, shape: str = "2.8b") -> dict:
    return compare.order_of(args, shape, "bf16", "model", "rows.jsonl", FOUND)


def result(seconds: float, **more) -> dict:
    steps = 3
    return {
        "seconds": [9.0] + [seconds] * (steps - 1),
        "cpu_seconds": [1.0] * steps,
        "tokens": [100] * steps,
        "losses": [0.693147] * steps,
        "scoring": {"seconds": 3 * seconds, "cpu_seconds": 0.0},
        "peak_memory_bytes": 5 * 10**6,
        **more,
    }


class Options(unittest.TestCase):
    def test_a_gpu_has_its_own_defaults(self):
        args = given()
        self.assertEqual(args.per_device, [16, 8, 4])
        self.assertEqual(args.peers, ["expo", "expo-online", "trl-default", "trl-best", "torch"])
        cpu = arguments([])
        self.assertEqual((cpu.threads, cpu.per_device, cpu.minutes), (2, None, float("inf")))
        self.assertEqual((cpu.shapes, cpu.batches, cpu.dtypes), (["70m"], [8], ["f32"]))
        self.assertEqual(cpu.peers, list(programs.PROGRAMS))

    def test_what_is_wrong_is_refused(self):
        for words in (
            ["--shapes", "3b"],
            ["--data", "rows.jsonl"],
            ["--per-device", "0"],
            ["--minutes", "0"],
            ["--micro-batch-tokens", "0"],
            ["--states", "split", "--device", "cpu"],
            ["--states", "split", "--dtypes", "f32"],
        ):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as stop:
                given(*words)
            self.assertEqual(stop.exception.code, 2, words)


class Tries(unittest.TestCase):
    def test_sizes_divide_the_batch(self):
        self.assertEqual(programs.divisors(64, [16, 8, 4]), [16, 8, 4])
        self.assertEqual(programs.divisors(18, [16, 8, 4]), [9, 6, 3])
        self.assertEqual(programs.divisors(6, [16, 8, 4]), [6, 3])
        self.assertEqual(programs.divisors(7, None), [7])

    def test_trl_at_its_best_recomputes_last(self):
        def of(name):
            return [programs.at_once(each) for each in programs.tries(name, base, [16, 8])]

        base = order(given()) | {"batch": 64}
        kept, again = ["16 pairs", "8 pairs"], ["16 pairs, recomputed", "8 pairs, recomputed"]
        self.assertEqual(of("trl-default"), again)
        self.assertEqual(of("trl-best"), kept + again)
        self.assertEqual(of("torch"), kept)
        self.assertEqual(of("expo"), ["16384 tokens"])
        base = order(given(), "llama-3-8b") | {"batch": 64}
        self.assertEqual((of("expo"), base["states"]), (["8192 tokens"], "split"))

    def test_the_first_that_fits_is_kept(self):
        def run(name, order, args, folder, seconds):
            tried.append((name, order.get("per_device")))
            if order.get("per_device") == 16:
                raise programs.OutOfMemory("CUDA out of memory")
            if name == "torch":
                raise programs.CannotRun("no")
            return result(1.0)

        tried, unable, args = [], {}, given()
        to_try = compare.plans(args, WHERE, order(args), 64)
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(compare, "run", run),
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            runs = compare.take_turns(args, WHERE, to_try, unable, Path(folder))
        self.assertEqual(unable, {"torch": "no"})
        self.assertEqual([each["at_once"] for each in runs["trl-best"]], ["8 pairs"] * 2)
        self.assertEqual([size for name, size in tried if name == "trl-best"], [16, 8, 8])
        self.assertIn("trl-best, 16 pairs: CUDA out of memory", said.getvalue())

    def test_nothing_starts_when_the_time_is_up(self):
        def run(name, order, args, folder, seconds):
            self.assertLess(seconds, compare.GRACE + 60)
            args.deadline = time.monotonic()
            return result(1.0)

        unable, args = {}, given("--minutes", "1")
        args.deadline = time.monotonic() + 60
        to_try = compare.plans(args, WHERE, order(args), 64)
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(compare, "run", run),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            runs = compare.take_turns(args, WHERE, to_try, unable, Path(folder))
        self.assertEqual(len(runs["expo"]), 1)
        self.assertEqual(set(unable), {"trl-default", "trl-best", "torch"})
        self.assertEqual(unable["torch"], "was not started within 1 minutes")

    def test_a_program_is_ended(self):
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        with self.assertRaisesRegex(programs.CannotRun, "not done in the 0 s"):
            programs.execute(sleep, 1, {}, 0.2)


class Failures(unittest.TestCase):
    def test_of_memory(self):
        torch = (
            "Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 "
            "has a total capacity of 139.81 GiB.\n[rank0]: a warning at exit\n"
        )
        failed = programs.failure(torch, 1)
        self.assertIsInstance(failed, programs.OutOfMemory)
        said = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
        self.assertEqual(str(failed), said)
        expo = programs.failure("error: DriverError(CUDA_ERROR_OUT_OF_MEMORY)\n", 1)
        self.assertIsInstance(expo, programs.OutOfMemory)
        self.assertNotIsInstance(programs.failure("first\nlast\n", 1), programs.OutOfMemory)
        self.assertEqual(str(programs.failure("", 3)), "exit code 3")

    def test_what_a_gpu_cannot_hold(self):
        of = lambda name, parameters: programs.too_large(name, "dpo", parameters, 150 * 10**9)
        llama = 8_030_261_248
        self.assertIn("22 bytes a parameter, 177 GB; the GPU has 150", of("trl-default", llama))
        # With 145 GB it is for the GPU to say.
        self.assertIsNone(of("trl-best", llama))
        self.assertIsNone(of("trl-default", 2_775_208_960))
        self.assertIsNone(of("expo", 10 * llama))


class Settings(unittest.TestCase):
    def of(self, name: str) -> dict:
        tries = programs.tries(name, order(given()) | {"batch": 64}, [16, 8, 4])
        return of_trl(tries[0] | {"output_dir": "out"})

    def test_as_installed(self):
        default = self.of("trl-default")
        self.assertFalse(default["use_cpu"] or default["precompute_ref_log_probs"])
        self.assertTrue(default["bf16"] and default["gradient_checkpointing"])
        self.assertEqual(default["per_device_train_batch_size"], 16)
        self.assertEqual(default["gradient_accumulation_steps"], 4)
        self.assertEqual(default["model_init_kwargs"], {"dtype": "float32"})
        self.assertNotIn("optim", default)

    def test_at_its_best(self):
        best = self.of("trl-best")
        self.assertTrue(best["bf16"] and best["precompute_ref_log_probs"])
        self.assertFalse(best["gradient_checkpointing"] or "padding_free" in best)
        self.assertEqual(best["optim"], "adamw_torch_fused")
        self.assertEqual(best["model_init_kwargs"]["attn_implementation"], "sdpa")

    def test_nothing_of_it_on_the_processor(self):
        args = arguments([])
        base = compare.order_of(args, "70m", "f32", "model", "rows", FOUND) | {"batch": 8}
        (only,) = programs.tries("trl-best", base, args.per_device)
        settings = of_trl(only | {"output_dir": "out"})
        self.assertTrue(settings["use_cpu"])
        self.assertEqual(settings["gradient_accumulation_steps"], 1)
        self.assertEqual(settings["model_init_kwargs"], {"dtype": "float32"})
        self.assertFalse(settings["bf16"] or settings["gradient_checkpointing"] or "optim" in settings)


class Probe(unittest.TestCase):
    def test_without_trl_plain_pytorch_still_runs(self):
        with tempfile.TemporaryDirectory() as folder:
            torch = "class cuda:\n    is_available = staticmethod(lambda: False)\n"
            gone = "raise ImportError('it is not here')"
            modules = {"torch": torch, "transformers": "", "trl": gone, "datasets": gone}
            for name, text in modules.items():
                (Path(folder) / f"{name}.py").write_text(text)
            args = arguments(["--python", sys.executable])
            args.path = folder
            peers = compare.probe(args)
        self.assertIsNone(peers[0])
        for name in ("torch", "expo", "expo-online"):
            self.assertIsNone(compare.cannot_run(name, args, peers), name)
        for name in ("trl-default", "trl-best"):
            why = compare.cannot_run(name, args, peers)
            self.assertEqual(why, f"{sys.executable}: ImportError: it is not here")

    def test_a_python_that_is_not_there_runs_no_peer(self):
        args = arguments(["--python", "no-such-python"])
        args.path = None
        peers = compare.probe(args)
        self.assertIn("no-such-python", compare.cannot_run("torch", args, peers))
        self.assertIsNone(compare.cannot_run("expo", args, peers))


class Table(unittest.TestCase):
    def test_rates_ratios_and_operations(self):
        planned = {"tokens": {"rows_per_epoch": 64}, "parameters": {"total": 7}}
        row = {"forward": 1e12, "backward": 2e12, "recompute": 5e12}
        planned["flops"] = {"row": row, "scoring": 64e12}
        planned = programs.counted(planned)
        self.assertEqual(planned, {"operations": 3e12, "scoring": 1e12, "parameters": 7})
        units = [64] * 3
        expo = [result(0.5, at_once="16384 tokens", peak_gpu_memory_bytes=80 * 10**6)]
        peer = {"peak_gpu_memory_bytes": 160 * 10**6, "reserved_gpu_memory_bytes": 200 * 10**6}
        cell = {
            "expo": table.summarize(expo, 1, units, False),
            "expo-online": table.summarize(expo, 1, units, True),
            "torch": table.summarize([result(2.0, at_once="8 pairs", **peer)], 1, units, False),
            "trl-best": {"reason": "no"},
        }
        for name, online in (("expo", False), ("expo-online", True)):
            table.add_operations(cell[name], planned, 64, units, online)
        table.ratios(cell, "cuda")
        text = table.markdown([(WHERE, cell)], "pair", "cuda").splitlines()
        columns = "pair/s | s/step | TFLOP/s | GPU MB | reserved | at once"
        self.assertEqual(
            text[0], f"| shape | batch | dtype | program | {columns} | {' | '.join(table.RATIOS)} |"
        )
        start = "| 2.8b | 64 | bf16 |"
        self.assertEqual(text[2], f"{start} expo | 128 | 0.5 | 384 | 80 | - | 16384 tokens | 1 | 0.5 | 1 |")
        # Half the rate, and four parts of three of the operations.
        self.assertEqual(
            text[3], f"{start} expo-online | 64 | 1 | 256 | 80 | - | 16384 tokens | 2 | 1 | 1 |"
        )
        self.assertEqual(text[4], f"{start} torch | 32 | 2 | - | 160 | 200 | 8 pairs | 4 | 2 | 0.5 |")
        self.assertIn("2.8b, batch 64, bf16: trl-best cannot run: no", text)
        self.assertTrue(any("max_memory_allocated" in line for line in text))

    def test_of_the_processor(self):
        cell = {"expo": table.summarize([result(0.5, at_once="-")], 1, [8] * 3, False)}
        table.ratios(cell)
        text = table.markdown([({"shape": "14m", "batch": 8, "dtype": "f32"}, cell)], "pair")
        line = "| 14m | 8 | f32 | expo | 16 | 0.5 | 0.125 | 5 | 1 | - | 1 |\n"
        self.assertTrue(text.endswith(line), text)


class DryRun(unittest.TestCase):
    def test_it_says_what_would_run(self):
        command = [sys.executable, "-B", str(HERE / "compare.py"), *ON_GPU, "--dry-run"]
        with tempfile.TemporaryDirectory() as folder:
            command += ["--work", folder, "--expo", "expo", "--python", "no-such-python"]
            command += ["--shapes", "2.8b,llama-3-8b"]
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": "3,4"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            self.assertEqual(os.listdir(folder), [])
        self.assertEqual(done.returncode, 0, done.stderr)
        said = [json.loads(line) for line in done.stdout.splitlines()]
        made = [each["command"] for each in said if each["program"] == "expo init"]
        self.assertEqual([command[-4:-2] for command in made], [["--dtype", "bf16"]] * 2)
        small, large = [each for each in said if each["program"] == "expo"]
        self.assertEqual(small["environment"], {"CUDA_VISIBLE_DEVICES": "3"})
        (config,) = small["files"].values()
        for line in (
            'dtype = "bf16"',
            'device = "cuda:0"',
            "batch_size = 64",
            "micro_batch_tokens = 16384",
            'states = "f32"',
        ):
            self.assertIn(f"\n{line}\n", config)
        (config,) = large["files"].values()
        self.assertIn('\nstates = "split"\n', config)
        self.assertIn("\nmicro_batch_tokens = 8192\n", config)
        tried = [each for each in said if "at_once" in each]
        of = [(each["shape"], each["program"], each["at_once"]) for each in tried]
        for size in (16, 8, 4):
            self.assertIn(("2.8b", "torch", f"{size} pairs"), of)
            self.assertIn(("llama-3-8b", "trl-best", f"{size} pairs, recomputed"), of)
        best = next(each for each in said if each["program"] == "trl-best")
        self.assertEqual(best["command"][0], "no-such-python")
        self.assertEqual(best["settings"]["gradient_accumulation_steps"], 4)
        self.assertIn("PYTORCH_CUDA_ALLOC_CONF", best["environment"])


class Plan(unittest.TestCase):
    @unittest.skipUnless(os.environ.get("EXPO"), "EXPO names no program")
    def test_expo_counts_its_operations(self):
        args = given("--task", "dpo")
        args.expo = os.environ["EXPO"]
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model = Path(shapes.make(args, "14m", folder))
            self.assertEqual(shapes.make(args, "14m", folder), str(model))
            self.assertEqual(sorted(each.name for each in folder.iterdir()), [model.name])
            data = folder / "rows.jsonl"
            rows.save(rows.make(32), data)
            base = order(args) | {"model": str(model), "data": str(data), "batch": 16, "steps": 2}
            planned = programs.plan(base, args, folder)
        # The Pythia of that name; a gradient takes twice a forward pass, and attention's a bit more.
        self.assertEqual(planned["parameters"], 14_067_712)
        share = planned["operations"] / planned["scoring"]
        self.assertTrue(3.0 < share < 3.2, share)


class Wheels(unittest.TestCase):
    @unittest.skipUnless(importlib.util.find_spec("pip"), "there is no pip")
    def test_what_is_missing_is_unpacked(self):
        def wheel(name: str, *requires: str):
            info = f"{name}-1.0.dist-info"
            needs = "".join(f"Requires-Dist: {other}\n" for other in requires)
            files = {
                f"{name}.py": "",
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}",
                f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            }
            files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
            with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
                for path, text in files.items():
                    archive.writestr(path, text)

        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            # pip itself is there, and is not among the wheels.
            wheel("expo_test_a", "expo_test_b", "pip")
            wheel("expo_test_b")
            wheel("expo_test_c")
            place = folder / "unpacked"
            path = wheels.unpack(sys.executable, temporary, place, ("expo_test_a",))
            self.assertEqual(path, str(place))
            modules = sorted(each.name for each in place.glob("*.py"))
        self.assertEqual(modules, ["expo_test_a.py", "expo_test_b.py"])


class Pretrained(unittest.TestCase):
    def test_the_end_of_a_tokenizer(self):
        with tempfile.TemporaryDirectory() as name:
            model = Path(name)
            added = [{"id": 3, "content": "<pad>"}, {"id": 1, "content": "<eos>"}]
            (model / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
            for end in ("<eos>", {"content": "<eos>", "lstrip": False}):
                (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": end}))
                self.assertEqual(pretrained.end_of(model), ("<eos>", 1))

    def test_expo_and_the_loop_get_one_order(self):
        args = SimpleNamespace(model="m", warmup=1, steps=2, threads=2, batch=4, expo="expo", python="py", path=None)
        order = pretrained.training(args, "bf16", Path("pairs.jsonl"), "<eos>")
        own, loop = (programs.tries(name, order, None)[0] for name in ("expo", "torch"))
        start = programs.launch("expo", own, args, Path("place"))
        self.assertIn('dtype = "bf16"\n', start.files[Path("place/run.toml")])
        self.assertEqual((loop["per_device"], loop["end"], loop["steps"]), (4, "<eos>", 3))

    def test_a_line_has_gaps_where_a_program_failed(self):
        expo = {"rate": 2.0, "megabytes": 4000.4}
        self.assertEqual(pretrained.line("f32", "w", expo, {"reason": "x"}), "| f32 | w | 2 | - | - | 4000 | - | - |")
        peer = {"rate": 0.5, "megabytes": 8000.0}
        self.assertEqual(pretrained.line("f32", "w", expo, peer), "| f32 | w | 2 | 0.5 | 4 | 4000 | 8000 | 0.5 |")


if __name__ == "__main__":
    unittest.main()
