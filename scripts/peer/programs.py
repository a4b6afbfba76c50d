"""The programs that are compared, and how each is run on an order."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# Large blocks then come from the heap again instead of from the system at every step.
TUNED = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
# Memory of the GPU that is free but in pieces then serves large tensors, too.
TUNED_GPU = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
TORCH = ("torch", "transformers")
COMMANDS = {"dpo": "train", "sft": "sft"}


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

    @property
    def imports(self) -> tuple[str, ...]:
        """The packages that its script imports."""
        return {None: (), "torch_peer.py": TORCH, "trl_peer.py": (*TORCH, "trl", "datasets")}[self.script]


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
        "TRL at its best: keeps activations, reference cached, allocator tuned; on a GPU fused AdamW,\n"
        + 15 * " "
        + "and FlashAttention 2 where there is flash_attn, else PyTorch's sdpa",
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


class OutOfMemory(CannotRun):
    """It needs more memory than the GPU has."""


@dataclass(frozen=True)
class Launch:
    """A program's command, the variables set for it, and the files to write before."""

    command: list[str]
    variables: dict[str, str]
    files: dict[Path, str]


def divisors(batch: int, wanted: list[int] | None) -> list[int]:
    """For each wanted number of pairs at once the largest not above it that divides the batch; the
    batch itself where none is wanted."""
    largest = [
        max(size for size in range(1, min(most, batch) + 1) if batch % size == 0)
        for most in wanted or [batch]
    ]
    return list(dict.fromkeys(largest))


def tries(name: str, order: dict, wanted: list[int] | None) -> list[dict]:
    """The order as a program is to try it, in turn until one does not run out of memory."""
    program = PROGRAMS[name]
    gpu = order["device"] == "cuda"
    best = gpu and program.tuned
    order = order | {
        "cached": program.cached,
        "dtype": program.dtype or order["dtype"],
        "optim": "adamw_torch_fused" if best else None,
        "attention": order["attention"] if best else None,
    }
    if program.script is None:
        return [order]
    either = [False, True] if best and program.script == "trl_peer.py" else [program.recompute]
    return [
        order | {"recompute": recompute, "per_device": size}
        for recompute in either
        for size in divisors(order["batch"], wanted)
    ]


def at_once(order: dict) -> str:
    """What a try computes at once, for a table."""
    if "per_device" not in order:
        tokens = order["micro_batch_tokens"]
        return f"{tokens} tokens" if tokens else "-"
    unit = "pairs" if order["task"] == "dpo" else "sequences"
    return f"{order['per_device']} {unit}{', recomputed' if order['recompute'] else ''}"


def launch(name: str, order: dict, args, folder: Path) -> Launch:
    """How a program is run on one of its tries in `folder`, which is new."""
    program = PROGRAMS[name]
    gpu = order["device"] == "cuda"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] if gpu else ""
    order = order | {"output_dir": str(folder / "run")}
    if program.script is None:
        path = folder / "run.toml"
        command = [args.expo, COMMANDS[order["task"]], "--config", str(path)]
        variables = {"CUDA_VISIBLE_DEVICES": visible} if gpu else {}
        return Launch(command, variables, {path: toml(order, folder)})
    path = folder / "order.json"
    variables = {
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": visible,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if args.path:
        variables["PYTHONPATH"] = args.path
    if program.tuned:
        variables |= TUNED | (TUNED_GPU if gpu else {})
    command = [args.python, str(HERE / program.script), str(path)]
    return Launch(command, variables, {path: json.dumps(order)})


def run(name: str, order: dict, args, folder: Path, seconds: float | None) -> dict:
    """Runs a program on one of its tries in `folder`, for so many seconds at most. Returns its
    `seconds`, `cpu_seconds`, `tokens` and `losses` per step, and its `peak_memory_bytes`; where one is
    not known, nothing or `None`."""
    start = launch(name, order, args, folder)
    for path, text in start.files.items():
        path.write_text(text)
    output = execute(start.command, order["threads"], start.variables, seconds)
    if PROGRAMS[name].script is None:
        return expo_run(folder / "run")
    return json.loads(output.splitlines()[-1])


def expo_run(run: Path) -> dict:
    """What expo wrote of a run."""
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
        "peak_gpu_memory_bytes": steps[-1].get("peak_gpu_memory_bytes"),
    }


def plan(order: dict, args, folder: Path) -> dict:
    """What `expo plan` says of expo's run: `operations` of a row's forward and backward pass, those of
    `scoring` it with the reference, and the model's `parameters`."""
    start = launch("expo", order, args, folder)
    for path, text in start.files.items():
        path.write_text(text)
    # Of memory there is enough: whether the run fits is seen when it runs.
    command = [args.expo, "plan", *start.command[2:], "--json", "--memory", "1000000"]
    return counted(json.loads(execute(command, order["threads"], start.variables)))


def counted(planned: dict) -> dict:
    flops, rows = planned["flops"], planned["tokens"]["rows_per_epoch"]
    return {
        "operations": flops["row"]["forward"] + flops["row"]["backward"],
        "scoring": flops["scoring"] / rows,
        "parameters": planned["parameters"]["total"],
    }


def too_large(name: str, task: str, parameters: int, memory: int) -> str | None:
    """Why a peer cannot hold a model in a GPU's memory: weights, gradients and Adam's two moments are
    f32, autocast keeps the weights in bf16, too, and a reference on line is f32."""
    program = PROGRAMS[name]
    online = task == "dpo" and not program.cached
    each = 22 if online else 18
    if program.script is None or each * parameters <= memory:
        return None
    what = "weights, gradients, moments" + (", reference" if online else "")
    return (
        f"{what} and what autocast rounds take {each} bytes a parameter, "
        f"{each * parameters / 1e9:.0f} GB; the GPU has {memory / 1e9:.0f}"
    )


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
    if order["micro_batch_tokens"]:
        sections["batch"]["micro_batch_tokens"] = order["micro_batch_tokens"]
    if order["device"] == "cuda":
        sections["model"]["device"] = "cuda:0"
        # The final model is not looked at, and may be larger than the disk.
        sections["run"]["save_model"] = False
        sections["optimizer"]["states"] = order["states"]
    parts = []
    for section, keys in sections.items():
        parts += [f"[{section}]"] + [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(parts) + "\n"


def execute(
    command: list[str], threads: int, variables: dict[str, str], seconds: float | None = None
) -> str:
    """Runs a command on `threads` CPUs, for so many seconds at most. Returns its standard
    output."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    environment = os.environ | {name: str(threads) for name in pools} | variables

    def pin():
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            preexec_fn=pin,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"not done in the {seconds:.0f} s that were left") from None
    except OSError as error:
        raise CannotRun(str(error)) from error
    if done.returncode != 0:
        raise failure(done.stderr, done.returncode)
    return done.stdout


def failure(stderr: str, code: int) -> CannotRun:
    """Why a program failed, by what it said last."""
    said = [line.strip() for line in stderr.splitlines() if line.strip()]
    memory = [line for line in said if re.search("out.of.memory", line, re.IGNORECASE)]
    if memory:
        # PyTorch goes on with advice.
        return OutOfMemory(". ".join(memory[-1].split(". ")[:2]))
    return CannotRun(said[-1] if said else f"exit code {code}")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
