"""Measures how long expo and its peers in Python take from launch to the first row, step and token."""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import rows
import shapes
from compare import ROOT, build, machine, say, to_build
from options import several
from programs import CannotRun, execute, toml

HERE = Path(__file__).parent
# Rows whose time is taken off, so that a rate of rows does not count the start of a process.
FEW = 100
PROMPT = "the river asked"
EPILOG = """
work:
  rows   JSON lines read and tokenized, rows a second, without the start of the process: `expo data show`
         beside `datasets` and `tokenizers` (encode_batch_fast, a thousand rows at a time)
  step   from launch to the first step of DPO, seconds: process, config, rows read and tokenized, weights;
         scoring with the reference left out. The peer imports torch and transformers, loads the model
         with from_pretrained and tokenizes the same rows
  token  from launch to the first token of one prompt, seconds: `expo sample --prompt` beside from_pretrained and generate
  read   the weights' file read once by a process that does nothing else, MB a second: the bound of the two above

The files are in the page cache. Speeds are medians over the rounds, in which the programs take turns.
"""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare_startup.sh",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--shapes", metavar="LIST", type=several(shapes.SHAPES, str), default=["llama-162m"], help="[llama-162m]")
    add("--rows", metavar="N", type=int, default=20000, help="pairs to read and tokenize [20000]")
    add("--data", metavar="FILE", help="rows in HH's form, .jsonl or .jsonl.gz [made-up words]")
    tokenizer = "tokenizer.json with <|endoftext|> [of tests/fixtures/neox]"
    add("--tokenizer", metavar="FILE", default=str(ROOT / "tests/fixtures/neox/tokenizer.json"), help=tokenizer)
    add("--rounds", metavar="N", type=int, default=3, help="turns of each program [3]")
    add("--threads", metavar="N", type=int, default=2, help="[2]")
    add("--work", metavar="DIR", help="where models are made, and kept for the next time [a temporary directory]")
    add("--out", metavar="FILE", help="everything measured, as JSON")
    add("--expo", metavar="FILE", help="the program; built from this checkout if not given")
    add("--python", metavar="FILE", default=os.environ.get("PYTHON", sys.executable), help="[$PYTHON, else python3]")
    parsed = parser.parse_args(words)
    if parsed.rows <= FEW:
        parser.error(f"--rows are more than {FEW}")
    return parsed


def config(model: str, data: Path, folder: Path) -> str:
    """One step of DPO in a new directory, that leaves no model."""
    order = {
        "task": "dpo", "model": model, "dtype": "f32", "data": str(data), "max_length": rows.MAX_LENGTH,
        "beta": 0.1, "batch": 1, "learning_rate": 1e-6, "output_dir": str(folder / "run"), "steps": 1,
        "micro_batch_tokens": None, "device": "cpu",
    }
    return toml(order, folder) + "save_model = false\noverwrite = true\n"


def timed(command: list, args, variables: dict | None = None) -> tuple[float, str]:
    """The wall-clock seconds of a command, and its standard output."""
    start = time.perf_counter()
    output = execute([str(word) for word in command], args.threads, variables or {})
    return time.perf_counter() - start, output


def peer(work: str, order: dict, args, folder: Path) -> tuple[float, str]:
    path = folder / "order.json"
    path.write_text(json.dumps(order))
    variables = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    variables |= {"HF_HOME": str(Path(tempfile.mkdtemp(dir=folder)))}
    return timed([args.python, "-B", HERE / "startup_peer.py", work, path], args, variables)


def of_rows(name: str, order: dict, args, folder: Path) -> float:
    """Rows a second, without the start of the process."""
    seconds = []
    for data in (order["few"], order["data"]):
        if name == "expo":
            path = folder / "show.toml"
            path.write_text(config(order["model"], Path(data), folder))
            seconds.append(timed([args.expo, "data", "show", "--config", path], args)[0])
        else:
            seconds.append(peer("rows", order | {"data": data}, args, folder)[0])
    return (args.rows - FEW) / (seconds[1] - seconds[0])


def of_step(name: str, order: dict, args, folder: Path) -> float:
    """Seconds from launch to the first step."""
    if name != "expo":
        return peer("step", order, args, folder)[0]
    path = folder / "run.toml"
    path.write_text(config(order["model"], Path(order["data"]), folder))
    seconds, _ = timed([args.expo, "train", "--config", path], args)
    lines = (folder / "run" / "timings.jsonl").read_text().splitlines()
    # Steps, and scoring, which is step 0.
    return seconds - sum(json.loads(line)["seconds"] for line in lines)


def of_token(name: str, order: dict, args, folder: Path) -> float:
    """Seconds from launch to the first token, and to the end of the process."""
    if name != "expo":
        return peer("token", order, args, folder)[0]
    command = [args.expo, "sample", "--model", order["model"], "--prompt", PROMPT, "--max-new-tokens", 1]
    return timed([*command, "--greedy"], args)[0]


def of_read(model: str) -> float:
    """Bytes a second of a plain read of all weights."""
    buffer = bytearray(8 << 20)
    start, total = time.perf_counter(), 0
    for file in Path(model).glob("*.safetensors"):
        with open(file, "rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                total += count
    return total / (time.perf_counter() - start)


WORK = {"rows": of_rows, "step": of_step, "token": of_token}
HEAD = ["shape", "work", "unit", "expo", "Python", "ratio"]


def line(shape: str, work: str, runs: dict) -> str:
    """A row of the table; the ratio is how many times faster expo is."""
    middle = {name: statistics.median(values) if values else None for name, values in runs.items()}
    own, other = middle.get("expo"), middle.get("python")
    ratio = None
    if own is not None and other is not None:
        ratio = own / other if work == "rows" else other / own
    digits, unit = (0, "rows/s") if work == "rows" else (2, "s")
    shown = ["-" if value is None else f"{value:.{digits}f}" for value in (own, other)]
    return "| " + " | ".join([shape, work, unit, *shown, "-" if ratio is None else f"{ratio:.1f}"]) + " |"


def measure(shape: str, args, folder: Path) -> dict:
    model = shapes.make(args, shape, Path(args.work or folder))
    made = rows.read(args.data, args.rows) if args.data else rows.make(args.rows)
    order = {"model": model, "threads": args.threads, "prompt": PROMPT}
    for name, part in (("few", made[:FEW]), ("data", made)):
        rows.save(part, folder / f"{name}.jsonl")
        order[name] = str(folder / f"{name}.jsonl")
    found = {work: {"expo": [], "python": []} for work in WORK}
    found["read"] = []
    for _ in range(args.rounds):
        found["read"].append(of_read(model))
        for work, of in WORK.items():
            for name, runs in found[work].items():
                try:
                    runs.append(of(name, order, args, folder))
                except CannotRun as error:
                    say(f"{shape} {work}: {name}: {error}")
                    continue
                say(f"{shape} {work}: {name} {runs[-1]:.2f}")
    return found


def main() -> None:
    args = arguments()
    if args.expo is None:
        build("cpu")
    args.expo = str(Path(args.expo or to_build()).resolve())
    if args.work:
        Path(args.work).mkdir(parents=True, exist_ok=True)
    say(machine("cpu"))
    lines, everything = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for shape in args.shapes:
            folder = Path(temporary) / shape
            folder.mkdir()
            found = everything[shape] = measure(shape, args, folder)
            lines += [line(shape, work, found[work]) for work in WORK]
            rate = statistics.median(found["read"]) / 1e6
            lines.append(f"| {shape} | read | MB/s | {rate:.0f} | - | - |")
    print("| " + " | ".join(HEAD) + " |")
    print("|---|---|---|--:|--:|--:|")
    print("\n".join(lines))
    if args.out:
        Path(args.out).write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
