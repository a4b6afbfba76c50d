"""Trains and draws with expo and PyTorch in turn, from a model directory, and compares their speed."""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import rows
from compare import build, machine, say, to_build
from generate import SETTINGS, draw
from options import several
from programs import CannotRun, run, tries

EPILOG = """
Both take DPO steps on the first rows of the data, in file order, chosen and rejected answers in one
batch: PyTorch by a loop as fast as we could write it (scripts/peer/torch_peer.py: reference log-probs
computed before, the head on answer tokens alone, fused AdamW, autocast in bf16), expo by `expo train`.
Then both draw answers to the prompts of the next rows with the papers' settings. Speeds are medians over
the steps after the warm-up, without loading; memory is the most that a process held.
"""
HEAD = ["dtype", "work", "expo", "PyTorch", "ratio", "expo MB", "PyTorch MB", "ratio"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare_pretrained.sh",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", metavar="DIR", required=True, help="a Hugging Face model directory")
    add("--data", metavar="FILE", required=True, help="rows of HH, .jsonl or .jsonl.gz")
    add("--dtypes", metavar="LIST", type=several(["f32", "bf16"], str), default=["f32", "bf16"], help="[f32,bf16]")
    add("--batch", metavar="N", type=int, default=4, help="pairs a step [4]")
    add("--steps", metavar="N", type=int, default=2, help="steps that are timed [2]")
    add("--warmup", metavar="N", type=int, default=1, help="steps before them [1]")
    add("--prompts", metavar="N", type=int, default=8, help="prompts to draw for, all at once; 0: none [8]")
    add("--new-tokens", metavar="N", type=int, default=64, help="the most tokens of an answer [64]")
    add("--threads", metavar="N", type=int, default=2, help="[2]")
    add("--out", metavar="FILE", help="everything measured, as JSON")
    add("--expo", metavar="FILE", help="the program; built from this checkout if not given")
    add("--python", metavar="FILE", default=os.environ.get("PYTHON", sys.executable), help="[$PYTHON, else python3]")
    parsed = parser.parse_args()
    parsed.path = None
    return parsed


def end_of(model: Path) -> tuple[str, int]:
    """The token that ends an answer, and its id."""
    text = json.loads((model / "tokenizer_config.json").read_text())["eos_token"]
    text = text if isinstance(text, str) else text["content"]
    added = json.loads((model / "tokenizer.json").read_text())["added_tokens"]
    return text, next(token["id"] for token in added if token["content"] == text)


def training(args, dtype: str, data: Path, end: str) -> dict:
    return {
        "task": "dpo", "device": "cpu", "model": args.model, "data": str(data), "dtype": dtype,
        "steps": args.warmup + args.steps, "threads": args.threads, "batch": args.batch,
        "max_length": rows.MAX_LENGTH, "learning_rate": 1e-6, "beta": 0.1,
        "micro_batch_tokens": None, "states": "f32", "attention": None, "end": end,
    }


def drawing(args, dtype: str, data: Path, end: str, id: int) -> dict:
    return {
        "model": args.model, "data": str(data), "dtype": dtype, "threads": args.threads,
        "settings": SETTINGS, "ends": [id], "prompt_tokens": rows.MAX_LENGTH, "end": end,
        "max_new_tokens": args.new_tokens, "batch": args.prompts,
    }


def step_rate(result: dict, args) -> float:
    return args.batch / statistics.median(result["seconds"][args.warmup :])


def measured(what: str, call, rate) -> dict:
    """Speed and memory of a program, or the reason why there are none."""
    try:
        result = call()
    except CannotRun as error:
        say(f"{what}: {error}")
        return {"reason": str(error)}
    say(f"{what}: {rate(result):.3g}/s, {result['peak_memory_bytes'] / 1e6:.0f} MB")
    return {"rate": rate(result), "megabytes": result["peak_memory_bytes"] / 1e6, "result": result}


def line(dtype: str, work: str, expo: dict, peer: dict) -> str:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"

    cells = [dtype, work]
    for key in ("rate", "megabytes"):
        pair = expo.get(key), peer.get(key)
        cells += [number(value) for value in (*pair, pair[0] / pair[1] if all(pair) else None)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    args = arguments()
    if args.expo is None:
        build("cpu")
    args.expo = str(Path(args.expo or to_build()).resolve())
    args.model = str(Path(args.model).resolve())
    end, id = end_of(Path(args.model))
    count = args.batch * (args.warmup + args.steps)
    found = rows.read(args.data, count + args.prompts)
    say(machine("cpu"))
    lines, everything = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pairs, prompts = folder / "pairs.jsonl", folder / "prompts.jsonl"
        rows.save(found[:count], pairs)
        rows.save([{"prompt": row["prompt"]} for row in found[count:]], prompts)
        for dtype in args.dtypes:
            order = training(args, dtype, pairs, end)
            cell = {}
            for name in ("expo", "torch"):
                place = folder / f"{name}-{dtype}"
                place.mkdir()
                own = tries(name, order, None)[0]
                cell[name] = measured(
                    f"{dtype} DPO, {name}", lambda: run(name, own, args, place, None),
                    lambda result: step_rate(result, args),
                )
            lines.append(line(dtype, f"DPO, {args.batch} pairs a step: pairs/s", cell["expo"], cell["torch"]))
            everything.append({"dtype": dtype, "work": "dpo", **cell})
            if not args.prompts:
                continue
            order = drawing(args, dtype, prompts, end, id)
            cell = {
                name: measured(
                    f"{dtype} drawing, {name}", lambda: draw(name, order, args, folder),
                    lambda result: result["tokens"] / result["seconds"],
                )
                for name in ("expo", "transformers")
            }
            work = f"{args.prompts} answers at once: tokens/s"
            lines.append(line(dtype, work, cell["expo"], cell["transformers"]))
            everything.append({"dtype": dtype, "work": "sample", **cell})
    print("| " + " | ".join(HEAD) + " |")
    print("| --- | --- |" + " --: |" * (len(HEAD) - 2))
    print("\n".join(lines))
    if args.out:
        Path(args.out).write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
