"""Runs expo and its peers in turns on the same rows, and says who is how fast."""

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import rows
import table
from programs import PROGRAMS, CannotRun, run

ROOT = Path(__file__).parents[2]
# hidden, layers, heads, intermediate: the Pythia of that name.
SHAPES = {"14m": (128, 6, 4, 512), "70m": (512, 6, 8, 2048), "160m": (768, 12, 12, 3072)}
EPILOG = "\n".join(
    ["programs:"]
    + [f"  {name:<13}{program.about}" for name, program in PROGRAMS.items()]
    + [
        "",
        "All learn preferences by DPO with beta 0.1 or, with --task sft, whole texts, which TRL packs.",
        "All have the same random weights and rows, 512 tokens at most, AdamW with learning rate 1e-6,",
        "clipping at norm 1; f32, or bf16 as autocast over f32 weights. Speeds are medians over the steps",
        "of all rounds after warm-up, processor seconds their mean; memory is the most that a process",
        "held up to its last step. The last columns are expo's rate, with the reference cached and on",
        "line, and its memory, over the program's. The table goes to standard output, everything else to standard error.",
        "",
        "Without --data the rows are made-up words, as long as the texts of Anthropic's HH.",
    ]
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare_trl.sh",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def several(among, kind):
        def parse(text: str) -> list:
            values = [kind(value) for value in text.split(",")]
            wrong = [value for value in values if among and value not in among]
            if wrong:
                raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(among)}")
            return values

        return parse

    add = parser.add_argument
    def add_list(name, among, default, text, kind=str):
        add(name, metavar="LIST", type=several(among, kind), default=default, help=text)

    add("--data", metavar="FILE", help="rows in HH's form, .jsonl or .jsonl.gz")
    add("--tokenizer", metavar="FILE", help="their tokenizer.json, of GPT-NeoX for instance")
    add("--task", choices=["dpo", "sft"], default="dpo")
    add_list("--shapes", SHAPES, ["70m"], "of 14m,70m,160m [70m]")
    add_list("--batches", None, [8], "pairs a step; of texts, sequences that TRL packs [8]", int)
    add_list("--dtypes", ["f32", "bf16"], ["f32"], "of f32,bf16 [f32]")
    add_list("--peers", PROGRAMS, None, "programs, as below [all that do the task]")
    add("--steps", metavar="N", type=int, default=6, help="steps measured in a round [6]")
    add("--warmup", metavar="N", type=int, default=2, help="steps before them [2]")
    add("--rounds", metavar="N", type=int, default=2, help="turns of each program [2]")
    add("--threads", metavar="N", type=int, default=2, help="[2]")
    add("--out", metavar="FILE", help="everything measured, as JSON")
    add("--expo", metavar="FILE", help="the program; built from this checkout if not given")
    python = os.environ.get("PYTHON", sys.executable)
    needs = "a Python with torch, transformers, trl, datasets [$PYTHON, else python3]"
    add("--python", metavar="FILE", default=python, help=needs)
    parsed = parser.parse_args()
    if not parsed.peers:
        parsed.peers = [name for name, program in PROGRAMS.items() if parsed.task in program.tasks]
    if bool(parsed.data) != bool(parsed.tokenizer):
        parser.error("--data and --tokenizer go together")
    for name in ("steps", "rounds", "threads"):
        if getattr(parsed, name) < 1:
            parser.error(f"--{name} is at least 1")
    if min(parsed.batches) < 1 or parsed.warmup < 0:
        parser.error("--batches are at least 1, --warmup at least 0")
    return parsed


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """The processors, by name where the system has one for them (Linux)."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    lines = [line.split(":") for line in text.splitlines()]
    names = [line[1].strip() for line in lines if line[0].startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}, {platform.system()}"


def built() -> str:
    manifest = str(ROOT / "Cargo.toml")
    build = ["cargo", "build", "--release", "--locked", "--bin", "expo"]
    subprocess.run([*build, "--manifest-path", manifest], check=True)
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    return str(Path(target) / "release" / "expo")


def missing(python: str) -> str | None:
    """Why the peers cannot run at all."""
    imports = "import torch, transformers, trl, datasets"
    try:
        done = subprocess.run([python, "-c", imports], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return f"{python}: {said[-1] if said else 'fails'}"


def make_model(args: argparse.Namespace, shape: str, folder: Path) -> str:
    """A model of random weights, and its tokenizer, in Hugging Face form."""
    parts = ("tokenizer", "config", "model")
    tokenizer, config, model = (folder / f"{part}-{shape}" for part in parts)
    end = rows.save_tokenizer(tokenizer, args.tokenizer)
    hidden, layers, heads, intermediate = SHAPES[shape]
    config.mkdir()
    (config / "config.json").write_text(json.dumps({
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": 50304,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "hidden_act": "gelu",
        "rotary_pct": 0.25,
        "max_position_embeddings": 2048,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "bos_token_id": end,
        "eos_token_id": end,
    }))
    command = [args.expo, "init", "--config-json", config, "--tokenizer", tokenizer, "--out", model]
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)
    return str(model)


def make_rows(args: argparse.Namespace, batch: int, folder: Path) -> tuple[str, int]:
    """The rows of a run of all steps, and how many expo takes a step: of texts as many as fill the
    sequences that TRL packs."""
    steps = args.warmup + args.steps
    size = 16 * batch if args.task == "sft" else batch
    data = rows.read(args.data, size * steps) if args.data else rows.make(size * steps)
    if args.task == "sft":
        data = rows.texts(data)
        lengths = [min(rows.tokens(row["text"], not args.data), rows.MAX_LENGTH) for row in data]
        size = max(round(batch * rows.MAX_LENGTH * len(data) / sum(lengths)), 1)
    path = folder / f"rows-{batch}.jsonl"
    rows.save(data, path)
    return str(path), size


def take_turns(args, where: dict, order: dict, size: int, unable: dict, folder: Path) -> dict:
    """Runs each program once a round, and returns the runs by program. Those that fail are added to
    `unable`, with the reason."""
    runs = {}
    for turn in range(args.rounds):
        for name in args.peers:
            # One run of expo has the figures for both: its scoring pass is timed apart.
            source = "expo" if name == "expo-online" else name
            if name in unable or len(runs.get(source, [])) > turn:
                continue
            place = folder / "turn"
            place.mkdir()
            batch = size if source == "expo" else where["batch"]
            try:
                result = run(source, order | {"batch": batch}, args.python, args.expo, place)
                runs.setdefault(source, []).append(result)
                seconds = sum(result["seconds"])
                say(f"{table.title(where)}, turn {turn + 1}: {source} took {seconds:.1f} s")
            except CannotRun as error:
                unable[name] = str(error).replace(f"{place}{os.sep}", "")
            shutil.rmtree(place)
    return runs


def compare(args, where: dict, order: dict, size: int, reason: str | None, folder: Path) -> dict:
    """One cell: every program's figures, or the reason why there are none."""
    unable = {}
    for name in args.peers:
        program = PROGRAMS[name]
        if args.task not in program.tasks:
            unable[name] = f"does {' and '.join(program.tasks)} alone"
        elif program.script and reason:
            unable[name] = reason
    runs = take_turns(args, where, order, size, unable, folder)
    cell = {}
    for name in args.peers:
        online = name == "expo-online"
        own = runs.get("expo" if online else name, [])
        if name not in unable and online and any(run["scoring"] is None for run in own):
            unable[name] = "this expo does not time its scoring pass"
        if name in unable:
            cell[name] = {"reason": unable[name]}
            continue
        of_step = own[0]["tokens"]
        units = [n / 1000 for n in of_step] if args.task == "sft" else [size] * len(of_step)
        cell[name] = table.summarize(own, args.warmup, units, online)
    table.ratios(cell)
    return cell


def main() -> None:
    args = arguments()
    args.expo = str(Path(args.expo).resolve()) if args.expo else built()
    reason = missing(args.python) if any(PROGRAMS[name].script for name in args.peers) else None
    if reason:
        say(f"only expo can run: {reason}")
    cells = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = {shape: make_model(args, shape, folder) for shape in args.shapes}
        data = {batch: make_rows(args, batch, folder) for batch in args.batches}
        for shape, batch, dtype in itertools.product(args.shapes, args.batches, args.dtypes):
            where = {"shape": shape, "batch": batch, "dtype": dtype}
            path, size = data[batch]
            order = {
                "task": args.task,
                "model": models[shape],
                "data": path,
                "dtype": dtype,
                "steps": args.warmup + args.steps,
                "threads": args.threads,
                "max_length": rows.MAX_LENGTH,
                "learning_rate": 1e-6,
                "beta": 0.1,
            }
            cell = compare(args, where, order, size, reason, folder)
            say("\n".join(table.checks(where, cell, args.task)))
            cells.append((where, cell))
    unit = "pair" if args.task == "dpo" else "1000 tokens"
    print(table.markdown(cells, unit), end="")
    if "expo-online" in args.peers:
        print(f"\nexpo-online: {PROGRAMS['expo-online'].about}; expo scores all rows once, before.")
    if args.out:
        everything = {
            "machine": machine(),
            "arguments": vars(args),
            "cells": [where | {"programs": cell} for where, cell in cells],
        }
        Path(args.out).write_text(json.dumps(everything, indent=1) + "\n")


try:
    main()
except subprocess.CalledProcessError as error:
    raise SystemExit(f"{error.cmd[0]} failed with exit code {error.returncode}") from None
except OSError as error:
    raise SystemExit(str(error)) from None
