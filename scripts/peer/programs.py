"""The programs that are compared, and how each is run on an order."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# Large blocks then come from the heap again instead of from the system at every step.
TUNED = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


@dataclass(frozen=True)
class Program:
    about: str
    script: str | None = None
    recompute: bool = False
    cached: bool = True
    tuned: bool = False
    # Its own, where it is not the cell's.
    dtype: str | None = None
    tasks: tuple[str, ...] = ("dpo",)


PROGRAMS = {
    "trl-default": Program(
        "TRL as installed: bf16 in every cell, recomputes activations, reference on line",
        script="trl_peer.py",
        recompute=True,
        cached=False,
        dtype="bf16",
        tasks=("dpo", "sft"),
    ),
    "trl-best": Program(
        "TRL at its best: keeps activations, reference cached, allocator tuned",
        script="trl_peer.py",
        tuned=True,
        tasks=("dpo", "sft"),
    ),
    "torch": Program(
        "PyTorch by hand: reference cached, head on answers alone, allocator tuned",
        script="torch_peer.py",
        tuned=True,
    ),
    "expo": Program("expo, reference cached", tasks=("dpo", "sft")),
    "expo-online": Program(
        "expo, the time to score a step's rows with the reference added to the step", cached=False
    ),
}


class CannotRun(Exception):
    """Why a program cannot run."""


def run(name: str, order: dict, python: str, expo: str, folder: Path) -> dict:
    """Runs a program in `folder`, which is new. Returns its `seconds`, `cpu_seconds`, `tokens` and
    `losses` per step, and its `peak_memory_bytes`; where one is not known, nothing or `None`."""
    program = PROGRAMS[name]
    order = order | {
        "output_dir": str(folder / "run"),
        "recompute": program.recompute,
        "cached": program.cached,
        "dtype": program.dtype or order["dtype"],
    }
    if program.script is None:
        return run_expo(expo, order, folder)
    path = folder / "order.json"
    path.write_text(json.dumps(order))
    command = [python, str(HERE / program.script), str(path)]
    variables = {
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    output = execute(command, order["threads"], variables | (TUNED if program.tuned else {}))
    return json.loads(output.splitlines()[-1])


def run_expo(expo: str, order: dict, folder: Path) -> dict:
    config = folder / "run.toml"
    config.write_text(toml(order, folder))
    command = {"dpo": "train", "sft": "sft"}[order["task"]]
    execute([expo, command, "--config", str(config)], order["threads"], {})
    run = Path(order["output_dir"])
    timings, metrics = (lines(run / f"{name}.jsonl") for name in ("timings", "metrics"))
    steps = [line for line in timings if line["step"] > 0]
    totals = [0] + [line["num_tokens"] for line in metrics]
    return {
        "seconds": [line["seconds"] for line in steps],
        "cpu_seconds": [line.get("cpu_seconds") for line in steps],
        "tokens": [after - before for before, after in zip(totals, totals[1:])],
        "losses": [line["loss"] for line in metrics],
        "scoring": next((line for line in timings if line["step"] == 0), None),
        "peak_memory_bytes": steps[-1].get("peak_memory_bytes"),
    }


def toml(order: dict, folder: Path) -> str:
    """The order as expo's config. The cache of reference log-probs is new, so that the pass that makes
    them is timed, too."""
    loss = {"dpo": {"beta": order["beta"]}, "sft": {"per_token": True}}[order["task"]]
    sections = {
        "model": {"model_name_or_path": order["model"], "dtype": order["dtype"]},
        "data": {
            "format": {"dpo": "pairs", "sft": "sft"}[order["task"]],
            "train": order["data"],
            "max_length": order["max_length"],
            # As TRL cuts: never a prompt, only the end of an answer.
            "max_prompt_length": order["max_length"] - 1,
            "on_invalid": "error",
            "shuffle": False,
        },
        f"loss.{order['task']}": loss,
        "batch": {"batch_size": order["batch"]},
        "optimizer": {"optim": "adamw", "learning_rate": order["learning_rate"]},
        "schedule": {"lr_scheduler_type": "constant"},
        "run": {
            "output_dir": order["output_dir"],
            "cache_dir": str(folder / "cache"),
            "max_steps": order["steps"],
            "logging_steps": 1,
        },
    }
    parts = []
    for section, keys in sections.items():
        parts += [f"[{section}]"] + [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(parts) + "\n"


def execute(command: list[str], threads: int, variables: dict[str, str]) -> str:
    """Runs a command on `threads` processors. Returns its standard output."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    environment = os.environ | {name: str(threads) for name in pools} | variables

    def pin():
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, preexec_fn=pin
        )
    except OSError as error:
        raise CannotRun(str(error)) from error
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise CannotRun(said[-1] if said else f"exit code {done.returncode}")
    return done.stdout


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
