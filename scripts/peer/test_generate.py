"""What of the comparison of drawing needs no peer: `python3 scripts/peer/test_generate.py`. The file for
llama.cpp is tested where there is numpy."""

import contextlib
import importlib.util
import io
import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import generate
import generate_table
import shapes
from programs import CannotRun

NUMPY = importlib.util.find_spec("numpy") is not None
TINY = {
    "model_type": "llama", "vocab_size": 3, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 32, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "max_position_embeddings": 8,
}


class Options(unittest.TestCase):
    def test_workloads(self):
        def of(*words: str) -> list[str]:
            return generate.workloads(generate.arguments(list(words)))

        self.assertEqual(of(), ["batch 1", "batch 16", "batch 64", "prefill", "mixed"])
        self.assertEqual(of("--batches", "4", "--mixed", "no"), ["batch 4", "prefill"])
        self.assertEqual(of("--mixed", "only"), ["mixed"])
        self.assertEqual(of("--prefill", "only"), ["prefill"])
        self.assertEqual(of("--batches", "0", "--prefill", "no", "--mixed", "no"), [])

    def test_what_a_peer_has_no_part_in(self):
        has_part = lambda *cell: generate.does_not(*cell) is None
        self.assertTrue(has_part("llama.cpp", "llama-162m", "q8_0", "batch 1"))
        self.assertFalse(has_part("llama.cpp", "70m", "f32", "batch 1"))
        self.assertFalse(has_part("llama.cpp", "llama-162m", "f32", "mixed"))
        self.assertTrue(has_part("transformers", "llama-162m", "bf16", "mixed"))
        self.assertFalse(has_part("transformers", "llama-162m", "q8_0", "batch 1"))

    def test_peers_that_cannot_be_imported(self):
        reasons = {"transformers": None, "llama.cpp": "no module"}
        with (
            mock.patch.object(generate, "missing", lambda python, peer: reasons[peer]),
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            self.assertEqual(generate.choose_peers(generate.arguments([])), ["transformers"])
            self.assertEqual(said.getvalue(), "llama.cpp is left out: no module\n")
            with self.assertRaisesRegex(SystemExit, "llama.cpp cannot run: no module"):
                generate.choose_peers(generate.arguments(["--peers", "llama.cpp"]))
        with mock.patch.dict(generate.PEERS, {"transformers": ("no_such_package",)}):
            self.assertIn("no_such_package", generate.missing(sys.executable, "transformers"))
        self.assertIn("no-such-python", generate.missing("no-such-python", "transformers"))


class Orders(unittest.TestCase):
    def test_prompts_have_their_tokens(self):
        lengths = [len(row["prompt"].split()) for row in generate.prompts("batch 3")]
        self.assertEqual(lengths, [64, 64, 64])
        lengths = [len(row["prompt"].split()) for row in generate.prompts("mixed")]
        self.assertEqual((len(lengths), min(lengths) >= 8, max(lengths) <= 256), (200, True, True))
        lengths = [len(row["prompt"].split()) for row in generate.prompts("prefill")]
        self.assertEqual(lengths, [2000] * 3)

    def test_a_model_gets_the_ends_of_its_workload(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            model = folder / "model"
            model.mkdir()
            (model / "config.json").write_text(json.dumps({"vocab_size": 400, "eos_token_id": 7}))
            place, ends = generate.with_ends(str(model), "mixed", folder)
            self.assertEqual(ends, [79, 159, 239, 319, 399])
            own = json.loads((Path(place) / "generation_config.json").read_text())
            self.assertEqual(own, {"eos_token_id": ends})
            self.assertEqual(generate.with_ends(str(model), "batch 2", folder)[1], [7])

    def test_commands_of_expo(self):
        def command(**changed) -> list[str]:
            order = {
                "model": "m", "data": "d", "dtype": "bf16", "threads": 2, "settings": generate.SETTINGS,
                "max_new_tokens": 128, "batch": 16,
            }
            with mock.patch.object(generate, "execute", lambda command, *_: json.dumps(command)):
                return generate.draw("expo", order | changed, SimpleNamespace(expo="expo"), Path("f"))

        said = command()
        self.assertEqual(said[said.index("--dtype") + 1], "bf16")
        self.assertIn("--repetition-penalty=1.1", said)
        self.assertNotIn("--greedy", said)
        said = command(dtype="q8_0", settings=None)
        self.assertEqual(said[said.index("--quantization") + 1], "q8_0")
        self.assertIn("--greedy", said)
        self.assertFalse(any(word == "--dtype" or word.startswith("--top-k") for word in said))

    def test_another_model_is_refused(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "samples.jsonl").write_text(json.dumps({"token_ids": [1, 2, 3]}))
            order = {"model": "m"}
            check = lambda ids: (
                mock.patch.object(generate, "order_of", lambda *_: order),
                mock.patch.object(generate, "draw", lambda *_: {"ids": [ids]}),
            )
            for ids, same in (([1, 2, 3, 9], True), ([1, 5, 3, 9], False)):
                with contextlib.ExitStack() as stack:
                    for patch in check(ids):
                        stack.enter_context(patch)
                    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
                    if not same:
                        stack.enter_context(self.assertRaisesRegex(CannotRun, "another token 1"))
                    generate.check_same_model("llama-162m", SimpleNamespace(), folder)


class Table(unittest.TestCase):
    def run_of(self, seconds: float, memory: int, **more) -> dict:
        mine = {"bytes": 4 * 10**9, "read_bytes_per_second": 8 * 10**9}
        return {"counted": 100, "seconds": seconds, "peak_memory_bytes": memory} | mine | more

    def test_a_line_is_of_medians(self):
        runs = {
            "expo": [self.run_of(s, 10**6) for s in (1.0, 2.0, 9.0)],
            "transformers": [self.run_of(10.0, 4 * 10**6)],
        }
        found = {"shape": "70m", "dtype": "f32", "workload": "mixed", "runs": runs}
        line = lambda *peers: generate_table.line(found, list(peers))
        self.assertEqual(line("transformers"), "| 70m | f32 | mixed | 50 | 10 | 5.00 | 1 | 4 | 0.25 | 25% |")
        both = "| 70m | f32 | mixed | 50 | 10 | 5.00 | - | - | 1 | 4 | 0.25 | - | - | 25% |"
        self.assertEqual(line("transformers", "llama.cpp"), both)
        runs.pop("transformers")
        self.assertEqual(line("transformers"), "| 70m | f32 | mixed | 50 | - | - | 1 | - | - | 25% |")
        head, rule, _ = generate_table.markdown([found], ["llama.cpp"]).splitlines()
        self.assertEqual(
            head, "| shape | dtype | workload | expo tokens/s | llama.cpp | ratio | expo MB | llama.cpp | ratio | of the bound |"
        )
        self.assertEqual(rule.count("|"), head.count("|"))

    def test_without_bytes_there_is_no_bound(self):
        runs = {"expo": [{"counted": 6000, "seconds": 3.0, "peak_memory_bytes": 10**6}]}
        found = {"shape": "70m", "dtype": "f32", "workload": "prefill", "runs": runs}
        self.assertEqual(generate_table.line(found, []), "| 70m | f32 | prefill | 2000 | 1 | - |")


@unittest.skipUnless(NUMPY, "there is no numpy")
class Gguf(unittest.TestCase):
    def test_values_in_each_dtype(self):
        import gguf_file
        import numpy as np

        values = np.array([1.0, -2.5, 1.00390625, 0.0], dtype=np.float32)
        self.assertEqual(gguf_file.encoded(values, "f32"), values.tobytes())
        # 1 + 2^-8 lies between two bf16, of which 1 is even.
        self.assertEqual(gguf_file.encoded(values, "bf16"), struct.pack("<4H", 0x3F80, 0xC020, 0x3F80, 0))
        block = np.zeros(64, dtype=np.float32)
        block[:3] = [127.0, -63.5, 0.49]
        coded = gguf_file.encoded(block, "q8_0")
        self.assertEqual(len(coded), 2 * 34)
        self.assertEqual(struct.unpack("<e4b", coded[:6]), (1.0, 127, -64, 0, 0))
        self.assertEqual(coded[34:], bytes(34))

    def test_rows_that_are_rotated_together_are_side_by_side(self):
        import gguf_file
        import numpy as np

        weight = np.arange(8, dtype=np.float32).reshape(8, 1)
        self.assertEqual(gguf_file.paired(weight, 2).ravel().tolist(), [0, 2, 1, 3, 4, 6, 5, 7])

    def test_a_file(self):
        import gguf_file
        import numpy as np

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "config.json").write_text(json.dumps(TINY))
            norm, embed = np.full(32, 2, dtype=np.float32), np.arange(96, dtype=np.float32).reshape(3, 32)
            entries, data = {}, b""
            for parameter, values in (("model.norm.weight", norm), ("model.embed_tokens.weight", embed)):
                offsets = [len(data), len(data) + values.nbytes]
                entries[parameter] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
                data += values.tobytes()
            header = json.dumps(entries).encode()
            (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
            out = folder / "model.gguf"
            gguf_file.write(folder, out, "bf16")
            whole = out.read_bytes()
        self.assertEqual(struct.unpack("<4sIQQ", whole[:24]), (b"GGUF", 3, 2, 13))
        self.assertIn(gguf_file.text("output_norm.weight") + struct.pack("<IQIQ", 1, 32, 0, 0), whole)
        # Its columns first, behind the norm's 128 bytes, in bf16.
        self.assertIn(gguf_file.text("token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 3, 30, 128), whole)
        self.assertEqual(whole[-192:], gguf_file.encoded(embed, "bf16"))
        self.assertEqual(whole[-320:-192], norm.tobytes())

    def test_names(self):
        import gguf_file

        self.assertEqual(gguf_file.name_of("lm_head.weight"), "output.weight")
        of_block = gguf_file.name_of("model.layers.11.self_attn.o_proj.weight")
        self.assertEqual(of_block, "blk.11.attn_output.weight")


class Shapes(unittest.TestCase):
    def test_the_small_llama_has_162_million_parameters(self):
        of = shapes.SHAPES["llama-162m"]
        hidden, inner = of["hidden_size"], of["intermediate_size"]
        layer = 4 * hidden * hidden + 3 * hidden * inner + 2 * hidden
        total = 2 * of["vocab_size"] * hidden + of["num_hidden_layers"] * layer + hidden
        self.assertEqual(total, 162_220_800)


if __name__ == "__main__":
    unittest.main()
