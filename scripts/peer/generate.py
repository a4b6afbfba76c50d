"""Draws responses with expo and transformers in turn, and compares their speed."""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

import rows
import shapes
from compare import build, machine, say, to_build
from options import several
from programs import TUNED, execute

HERE = Path(__file__).parent
# Those of the papers.
SETTINGS = {"temperature": 1.0, "top_k": 60, "top_p": 0.8, "repetition_penalty": 1.1}
EPILOG = """
workloads:
  batch N  N prompts of 64 tokens at once, 128 new tokens each
  mixed    200 prompts of 8 to 256 tokens, at most 256 new tokens; every 80th token of the vocabulary
           ends a response, so that they end by themselves after 80 tokens on average; 16 at once

Both draw with the papers' settings: temperature 1, top-k 60, top-p 0.8, repetition penalty 1.1. The
weights are random, f32, or bf16 from the same file. Transformers pads a batch to its longest prompt and
continues until its last response has ended; its allocator is tuned. Speeds are medians over the rounds, of
drawing alone, without loading; memory is the most that a process held. The bound is what expo's steps
have to read, weights, keys and values, at the rate of a plain read by all threads in the same process.
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare_generate.sh",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--shapes", metavar="LIST", type=several(shapes.SHAPES, str), default=["70m"], help="[70m]")
    add("--batches", metavar="LIST", type=several(None, int), default=[1, 16], help="[1,16]")
    add("--dtypes", metavar="LIST", type=several(["f32", "bf16"], str), default=["f32", "bf16"], help="[f32,bf16]")
    add("--mixed", choices=["yes", "no", "only"], default="yes", help="the workload of mixed lengths [yes]")
    add("--rounds", metavar="N", type=int, default=3, help="turns of each program [3]")
    add("--threads", metavar="N", type=int, default=2, help="[2]")
    add("--work", metavar="DIR", help="where models are made, and kept for the next time [a temporary directory]")
    add("--out", metavar="FILE", help="everything measured, as JSON")
    add("--expo", metavar="FILE", help="the program; built from this checkout if not given")
    add("--python", metavar="FILE", default=os.environ.get("PYTHON", sys.executable), help="[$PYTHON, else python3]")
    parsed = parser.parse_args()
    parsed.tokenizer = None
    return parsed


def words(count: int, draws: random.Random) -> str:
    return " ".join(draws.choices(rows.WORDS, k=count))


def prompts(workload: str) -> list[dict]:
    draws = random.Random(0)
    if workload == "mixed":
        return [{"prompt": words(draws.randint(8, 256), draws)} for _ in range(200)]
    return [{"prompt": words(64, draws)} for _ in range(int(workload.split()[1]))]


def with_ends(model: str, workload: str, folder: Path) -> tuple[str, list[int]]:
    """The model with the workload's end tokens, its weights linked."""
    config = json.loads((Path(model) / "config.json").read_text())
    size = config["vocab_size"]
    # One that is hardly ever drawn, where none is to end.
    ends = list(range(79, size, 80)) if workload == "mixed" else [config["eos_token_id"]]
    place = folder / f"{Path(model).name}-{workload.split()[0]}"
    if not place.exists():
        place.mkdir()
        for file in Path(model).iterdir():
            (place / file.name).symlink_to(file.resolve())
        own = place / "generation_config.json"
        own.unlink(missing_ok=True)
        own.write_text(json.dumps({"eos_token_id": ends}))
    return str(place), ends


def draw(name: str, order: dict, args, folder: Path) -> dict:
    if name == "transformers":
        path = folder / "order.json"
        path.write_text(json.dumps(order))
        command = [args.python, "-B", str(HERE / "generate_peer.py"), str(path)]
        variables = TUNED | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return json.loads(execute(command, order["threads"], variables).splitlines()[-1])
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in order["settings"].items()]
    command = [args.expo, "sample", "--model", order["model"], "--prompts", order["data"], *flags]
    command += ["--max-new-tokens", order["max_new_tokens"], "--batch-size", order["batch"]]
    command += ["--dtype", order["dtype"], "--device", "cpu", "--out", folder / "samples.jsonl"]
    command = [str(word) for word in [*command, "--overwrite", "--profile", "--json"]]
    return json.loads(execute(command, order["threads"], {}).splitlines()[-1])


def cell(shape: str, dtype: str, workload: str, args, folder: Path) -> dict:
    model, ends = with_ends(shapes.make(args, shape, Path(args.work or folder)), workload, folder)
    data = folder / "prompts.jsonl"
    rows.save(prompts(workload), data)
    order = {
        "model": model,
        "data": str(data),
        "dtype": dtype,
        "threads": args.threads,
        "settings": SETTINGS,
        "ends": ends,
        "prompt_tokens": 256,
        "max_new_tokens": 256 if workload == "mixed" else 128,
        "batch": 16 if workload == "mixed" else int(workload.split()[1]),
    }
    found = {"shape": shape, "dtype": dtype, "workload": workload, "runs": {}}
    for name in ["expo", "transformers"] * args.rounds:
        try:
            run = draw(name, order, args, folder)
        except Exception as error:
            say(f"{name}: {error}")
            continue
        rate = run["tokens"] / run["seconds"]
        say(f"{shape} {dtype} {workload}: {name} {rate:.1f} tokens/s, {run['tokens']} tokens")
        found["runs"].setdefault(name, []).append(run)
    return found


def line(found: dict) -> str:
    def median(name: str, of) -> float | None:
        runs = [of(run) for run in found["runs"].get(name, [])]
        return statistics.median(runs) if runs else None

    rate = {name: median(name, lambda r: r["tokens"] / r["seconds"]) for name in ("expo", "transformers")}
    memory = {name: median(name, lambda r: r["peak_memory_bytes"]) for name in rate}
    bound = median("expo", lambda r: r["bytes"] / r["seconds"] / r["read_bytes_per_second"])

    def number(x: float | None, digits: int = 0) -> str:
        return "-" if x is None else f"{x:.{digits}f}"

    both = all(x is not None for x in rate.values())
    cells = [found["shape"], found["dtype"], found["workload"]]
    cells += [number(rate["expo"]), number(rate["transformers"])]
    cells += [number(rate["expo"] / rate["transformers"] if both else None, 2)]
    cells += [number(memory["expo"] and memory["expo"] / 1e6), number(memory["transformers"] and memory["transformers"] / 1e6)]
    cells += [number(memory["expo"] / memory["transformers"] if both else None, 2)]
    cells += ["-" if bound is None else f"{100 * bound:.0f}%"]
    return "| " + " | ".join(cells) + " |"


def main():
    args = arguments()
    if args.expo is None:
        build("cpu")
        args.expo = to_build()
    workloads = [f"batch {size}" for size in args.batches] if args.mixed != "only" else []
    workloads += ["mixed"] if args.mixed != "no" else []
    if args.work:
        Path(args.work).mkdir(parents=True, exist_ok=True)
    say(machine("cpu"))
    all_found = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in args.shapes:
            for dtype in args.dtypes:
                for workload in workloads:
                    all_found.append(cell(shape, dtype, workload, args, Path(folder)))
    print("| shape | dtype | workload | expo tokens/s | transformers | ratio | expo MB | transformers | ratio | of the bound |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for found in all_found:
        print(line(found))
    if args.out:
        Path(args.out).write_text(json.dumps(all_found, indent=1))


if __name__ == "__main__":
    main()
