"""Runs expo and its peers in turn on the same rows, and compares their speed."""

import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rows
import shapes
import table
import wheels
from options import arguments
from programs import PROGRAMS, CannotRun, OutOfMemory, at_once, launch, plan, run, too_large, tries
from settings import of_trl

ROOT = Path(__file__).parents[2]
# A program that is running when the time is up has so many seconds more.
GRACE = 30
NO_PEERS = {"memory": None, "attention": None, "missing": {}}
# What the peers import, and with what error where they cannot.
PROBE = """
import importlib, json
missing = {}
for name in ("torch", "transformers", "trl", "datasets"):
    try:
        importlib.import_module(name)
    except Exception as error:
        missing[name] = f"{type(error).__name__}: {error}".splitlines()[0]
gpu = False
if "torch" not in missing:
    import torch
    gpu = torch.cuda.is_available()
try:
    import flash_attn
    flash = True
except Exception:
    flash = False
print(json.dumps({
    "memory": torch.cuda.get_device_properties(0).total_memory if gpu else None,
    "attention": "flash_attention_2" if flash else "sdpa",
    "missing": missing,
}))
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine(device: str) -> str:
    """The CPUs, by name where the system has one for them (Linux), and the GPU."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    lines = [line.split(":") for line in text.splitlines()]
    names = [line[1].strip() for line in lines if line[0].startswith("model name")]
    said = f"{os.cpu_count()} x {names[0] if names else platform.machine()}, {platform.system()}"
    if device == "cpu":
        return said
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return said
    return f"{said}; {done.stdout.splitlines()[0]}"


def to_build() -> str:
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    return str(Path(target) / "release" / "expo")


def build(device: str) -> None:
    manifest = str(ROOT / "Cargo.toml")
    command = ["cargo", "build", "--release", "--locked", "--bin", "expo"]
    command += ["--features", "cuda"] if device == "cuda" else []
    subprocess.run([*command, "--manifest-path", manifest], check=True)


def probe(args) -> tuple[str | None, dict]:
    """Why no peer can run; and the GPU's memory, the attention to use on it, and what of the packages
    that peers import is missing."""
    environment = os.environ | ({"PYTHONPATH": args.path} if args.path else {})
    try:
        command = [args.python, "-c", PROBE]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    except OSError as error:
        return str(error), NO_PEERS
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return f"{args.python}: {said[-1] if said else 'fails'}", NO_PEERS
    found = json.loads(done.stdout.splitlines()[-1])
    if args.device == "cuda" and found["memory"] is None and "torch" not in found["missing"]:
        return f"{args.python}: its PyTorch finds no GPU", found
    return None, found


def cannot_run(name: str, args, peers: tuple) -> str | None:
    """Why this program cannot run with that Python, if it cannot."""
    reason, found = peers
    program = PROGRAMS[name]
    if program.script is None or reason:
        return reason if program.script else None
    errors = [found["missing"][package] for package in program.imports if package in found["missing"]]
    return f"{args.python}: {errors[0]}" if errors else None


def make_rows(args, batch: int, folder: Path) -> tuple[str, int]:
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


def order_of(args, shape: str, dtype: str, model: str, data: str, found: dict) -> dict:
    """What all programs are to do in a cell, but for what is each one's own."""
    gpu = args.device == "cuda"
    split = gpu and dtype == "bf16" and shapes.split_states(shape)
    tokens = shapes.micro_batch_tokens(shape) if gpu else None
    return {
        "task": args.task,
        "device": args.device,
        "model": model,
        "data": data,
        "dtype": dtype,
        "steps": args.warmup + args.steps,
        "threads": args.threads,
        "max_length": rows.MAX_LENGTH,
        "learning_rate": 1e-6,
        "beta": 0.1,
        "micro_batch_tokens": args.micro_batch_tokens or tokens,
        "states": args.states or ("split" if split else "f32"),
        "attention": found["attention"] if gpu else None,
    }


def plans(args, where: dict, order: dict, size: int) -> dict[str, list[dict]]:
    """The tries of each program of a cell that does its task; one run of expo has the figures for both
    of its programs."""
    named = dict.fromkeys(source(name) for name in args.peers)
    able = [name for name in named if args.task in PROGRAMS[name].tasks]
    batches = {name: where["batch"] if PROGRAMS[name].script else size for name in able}
    return {name: tries(name, order | {"batch": batches[name]}, args.per_device) for name in able}


def source(name: str) -> str:
    """The program whose runs have the figures: expo's scoring pass is timed apart."""
    return "expo" if name == "expo-online" else name


def take_turns(args, where: dict, plans: dict, unable: dict, folder: Path) -> dict:
    """Runs each program once a round, and returns the runs by program. Those that fail are added to
    `unable`, with the reason."""
    runs = {}
    for turn in range(args.rounds):
        for name in args.peers:
            program = source(name)
            if name in unable or len(runs.get(program, [])) > turn:
                continue
            if program != name and program in unable:
                unable[name] = unable[program]
                continue
            if time.monotonic() >= args.deadline:
                if program not in runs:
                    unable[name] = f"was not started within {args.minutes:g} minutes"
                continue
            try:
                result = first_that_fits(args, where, program, plans[program], folder)
            except CannotRun as error:
                # What was measured before stays.
                if program not in runs:
                    unable[name] = str(error)
                say(f"{table.title(where)}, turn {turn + 1}: {program}: {error}")
                continue
            runs.setdefault(program, []).append(result)
            seconds = sum(result["seconds"])
            say(f"{table.title(where)}, turn {turn + 1}: {program} took {seconds:.1f} s")
    return runs


def first_that_fits(args, where: dict, name: str, left: list[dict], folder: Path) -> dict:
    """Runs a program on the first of its tries that does not run out of memory; those before are taken
    off the list."""
    while True:
        place = folder / "turn"
        place.mkdir()
        try:
            seconds = args.deadline + GRACE - time.monotonic()
            result = run(name, left[0], args, place, seconds if seconds < float("inf") else None)
            return result | {"at_once": at_once(left[0])}
        except CannotRun as error:
            said = str(error).replace(f"{place}{os.sep}", "")
            if len(left) == 1 or not isinstance(error, OutOfMemory):
                raise CannotRun(said) from None
            if time.monotonic() >= args.deadline:
                raise CannotRun(f"{at_once(left[0])}: {said}; no time for less") from None
            say(f"{table.title(where)}: {name}, {at_once(left[0])}: {said}")
            del left[0]
        finally:
            shutil.rmtree(place)


def compare(args, where: dict, order: dict, size: int, peers: tuple, folder: Path) -> dict:
    """One cell: every program's figures, or the reason why there are none."""
    found = peers[1]
    unable = {}
    to_try = plans(args, where, order, size)
    planned = plan_of(args, to_try, order, size, folder) if args.device == "cuda" else None
    for name in args.peers:
        program = PROGRAMS[name]
        if args.task not in program.tasks:
            unable[name] = f"does {' and '.join(program.tasks)} alone"
        elif why := cannot_run(name, args, peers):
            unable[name] = why
        elif planned and found["memory"]:
            held = too_large(name, args.task, planned["parameters"], found["memory"])
            unable |= {name: held} if held else {}
    runs = take_turns(args, where, to_try, unable, folder)
    cell = {}
    for name in args.peers:
        online = name == "expo-online"
        own = runs.get(source(name), [])
        if name not in unable and online and any(run["scoring"] is None for run in own):
            unable[name] = "this expo does not time its scoring pass"
        if name in unable:
            cell[name] = {"reason": unable[name]}
            continue
        of_step = own[0]["tokens"]
        units = [n / 1000 for n in of_step] if args.task == "sft" else [size] * len(of_step)
        cell[name] = table.summarize(own, args.warmup, units, online)
        if planned and PROGRAMS[name].script is None:
            table.add_operations(cell[name], planned, size, units, online)
    table.ratios(cell, args.device)
    return cell


def plan_of(args, to_try: dict, order: dict, size: int, folder: Path) -> dict:
    """What expo's run takes, whether or not it is one of the peers."""
    place = folder / "plan"
    place.mkdir()
    own = to_try["expo"][0] if "expo" in to_try else tries("expo", order | {"batch": size}, None)[0]
    try:
        return plan(own, args, place)
    except CannotRun as error:
        raise SystemExit(f"expo plan: {error}") from None
    finally:
        shutil.rmtree(place)


def show(args, where: dict, to_try: dict, folder: Path) -> None:
    """What a cell would run, a JSON object a try."""
    for name, orders in to_try.items():
        for order in orders:
            start = launch(name, order, args, folder / "turn")
            said = where | {"program": name, "at_once": at_once(order), "command": start.command}
            said |= {"environment": start.variables}
            said |= {"files": {str(path): text for path, text in start.files.items()}}
            if PROGRAMS[name].script == "trl_peer.py":
                said["settings"] = of_trl(order | {"output_dir": str(folder / "turn" / "run")})
            print(json.dumps(said))


def write(args, cells: list[tuple[dict, dict]]) -> None:
    if args.out:
        given = {name: value for name, value in vars(args).items() if name not in ("deadline", "path")}
        given["minutes"] = None if args.minutes == float("inf") else args.minutes
        everything = {
            "machine": machine(args.device),
            "arguments": given,
            "cells": [where | {"programs": cell} for where, cell in cells],
        }
        Path(args.out).write_text(json.dumps(everything, indent=1) + "\n")


def main() -> None:
    args = arguments()
    args.deadline = time.monotonic() + 60 * args.minutes
    args.path = None
    with tempfile.TemporaryDirectory(dir=ready(args.work)) as temporary:
        folder = Path(temporary)
        kept = Path(args.work).resolve() if args.work else folder
        if args.wheels and not args.dry_run:
            unpacked = wheels.unpack(args.python, args.wheels, folder / "wheels")
            args.path = os.pathsep.join(filter(None, [unpacked, os.environ.get("PYTHONPATH")]))
        if not args.expo and not args.dry_run:
            build(args.device)
        args.expo = str(Path(args.expo).resolve()) if args.expo else to_build()
        peers = probe(args) if any(PROGRAMS[name].script for name in args.peers) else (None, NO_PEERS)
        for name in args.peers:
            if why := cannot_run(name, args, peers):
                say(f"{name} cannot run: {why}")
        cells = work(args, peers, folder, kept)
    if args.dry_run:
        return
    unit = "pair" if args.task == "dpo" else "1000 tokens"
    print(table.markdown(cells, unit, args.device), end="")
    if "expo-online" in args.peers:
        print(f"\nexpo-online: {PROGRAMS['expo-online'].about}; expo scores all rows once, before.")
    write(args, cells)


def ready(folder: str | None) -> str | None:
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    return folder


def work(args, peers: tuple, folder: Path, kept: Path) -> list[tuple[dict, dict]]:
    cells = []
    data = {batch: make_rows(args, batch, folder) for batch in args.batches}
    for shape in args.shapes:
        if args.dry_run:
            model = shapes.place_of(args, shape, kept)
            command = shapes.initialise(args, shape, Path(f"{model}.parts"), model)
            print(json.dumps({"shape": shape, "program": "expo init", "command": command}))
        elif time.monotonic() >= args.deadline:
            say(f"{shape}: no time left for its model")
            continue
        else:
            model = shapes.make(args, shape, kept)
        for batch, dtype in itertools.product(args.batches, args.dtypes):
            where = {"shape": shape, "batch": batch, "dtype": dtype}
            path, size = data[batch]
            order = order_of(args, shape, dtype, str(model), path, peers[1])
            if args.dry_run:
                show(args, where, plans(args, where, order, size), folder)
                continue
            cell = compare(args, where, order, size, peers, folder)
            say("\n".join(table.checks(where, cell, args.task)))
            cells.append((where, cell))
            write(args, cells)
    return cells


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.cmd[0]} failed with exit code {error.returncode}") from None
    except OSError as error:
        raise SystemExit(str(error)) from None
