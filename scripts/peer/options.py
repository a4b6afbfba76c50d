"""The command line."""

import argparse
import os
import sys

from programs import PROGRAMS
from shapes import SHAPES

EPILOG = "\n".join(
    ["programs:"]
    + [f"  {name:<13}{program.about}" for name, program in PROGRAMS.items()]
    + [
        "",
        "All learn preferences by DPO with beta 0.1 or, with --task sft, whole texts, which TRL packs.",
        "All have the same random weights and rows, 512 tokens at most, AdamW with learning rate 1e-6,",
        "clipping at norm 1; f32, or bf16 as autocast over f32 weights. Speeds are medians over the steps",
        "of all rounds after warm-up, CPU seconds their mean; memory is the most that a process",
        "held up to its last step. The last columns are expo's rate, with the reference cached and on",
        "line, and its memory, over the program's. The table goes to standard output, everything else to standard error.",
        "",
        "Without --data the rows are made-up words, as long as the texts of Anthropic's HH.",
        "",
        "on a GPU (gpu_compare.sh, or --device cuda):",
        "  The machine needs one NVIDIA GPU and its driver, expo built with the feature cuda, and for the",
        "  peers a Python with PyTorch for CUDA and transformers, and for TRL trl and datasets, which --wheels",
        "  can bring; without these the peer in plain PyTorch runs. To build expo, the CUDA toolkit. With bf16, expo keeps weights and activations in bf16.",
        "  A step ends when the GPU has done it. The peers compute as many pairs at once, of --per-device",
        "  in its order, as do not run out of memory, and TRL at its best recomputes activations where",
        "  none does otherwise: the column `at once` says what ran. GPU MB is what tensors took at most,",
        "  torch.cuda.max_memory_allocated or expo's peak_gpu_memory_bytes; reserved is what PyTorch's",
        "  allocator held of the GPU for them. TFLOP/s are pairs a second times the operations that",
        "  `expo plan` counts for a pair, forward and backward, each prompt once, recomputing left out.",
    ]
)


def several(among, kind):
    def parse(text: str) -> list:
        values = [kind(value) for value in text.split(",")]
        wrong = [value for value in values if among and value not in among]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(among)}")
        return values

    return parse


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(
        prog="gpu_compare.sh" if "cuda" in words else "compare_trl.sh",
        description="Runs expo and its peers in turn on the same rows, and compares their speed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument

    def add_list(name, among, default, text, kind=str):
        add(name, metavar="LIST", type=several(among, kind), default=default, help=text)

    add("--device", choices=["cpu", "cuda"], default="cpu", help="what computes [cpu]")
    add("--data", metavar="FILE", help="rows in HH's form, .jsonl or .jsonl.gz")
    add("--tokenizer", metavar="FILE", help="their tokenizer.json, of GPT-NeoX for instance")
    add("--task", choices=["dpo", "sft"], default="dpo")
    add_list("--shapes", SHAPES, ["70m"], f"of {','.join(SHAPES)} [70m; gpu_compare.sh: 2.8b]")
    pairs = "pairs a step; of texts, sequences that TRL packs [8; gpu_compare.sh: 64]"
    add_list("--batches", None, [8], pairs, int)
    add_list("--dtypes", ["f32", "bf16"], ["f32"], "of f32,bf16 [f32; gpu_compare.sh: bf16]")
    add_list("--peers", PROGRAMS, None, "programs, as below [all that do the task]")
    add("--steps", metavar="N", type=int, default=6, help="steps measured in a round [6]")
    add("--warmup", metavar="N", type=int, default=2, help="steps before them [2]")
    add("--rounds", metavar="N", type=int, default=2, help="turns of each program [2]")
    add("--threads", metavar="N", type=int, help="[2; on a GPU all]")
    at_once = "pairs that peers compute at once, to be tried in turn [the batch; on a GPU 16,8,4]"
    add_list("--per-device", None, None, at_once, int)
    tokens = "tokens that expo computes at once [its default; on a GPU 16384, llama-3-8b 8192]"
    add("--micro-batch-tokens", metavar="N", type=int, help=tokens)
    states = "expo's optimizer.states, bf16 on a GPU [f32; llama-3-8b split]"
    add("--states", choices=["f32", "split"], help=states)
    minutes = "no program starts after so many, and none runs 30 s later [no limit; gpu_compare.sh: 9]"
    add("--minutes", metavar="X", type=float, default=float("inf"), help=minutes)
    add("--work", metavar="DIR", help="where models are made, and kept for the next time [a temporary directory]")
    add("--wheels", metavar="DIR", help="wheels of trl, datasets and what else the Python lacks")
    add("--dry-run", action="store_true", help="print what would run, a JSON object a line, and run nothing")
    add("--out", metavar="FILE", help="everything measured, as JSON")
    add("--expo", metavar="FILE", help="the program; built from this checkout if not given")
    python = os.environ.get("PYTHON", sys.executable)
    needs = "a Python with torch, transformers and, for TRL, trl, datasets [$PYTHON, else python3]"
    add("--python", metavar="FILE", default=python, help=needs)
    parsed = parser.parse_args(words)
    check(parser, parsed)
    gpu = parsed.device == "cuda"
    if not parsed.peers:
        parsed.peers = [name for name, program in PROGRAMS.items() if parsed.task in program.tasks]
        if gpu:
            # Where time is short, expo's part is not what is missing.
            parsed.peers.sort(key=lambda name: PROGRAMS[name].script is not None)
    if parsed.threads is None:
        parsed.threads = processors() if gpu else 2
    if parsed.per_device is None and gpu:
        parsed.per_device = [16, 8, 4]
    return parsed


def check(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    if bool(parsed.data) != bool(parsed.tokenizer):
        parser.error("--data and --tokenizer go together")
    for name in ("steps", "rounds", "threads", "micro_batch_tokens"):
        value = getattr(parsed, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} is at least 1")
    if min(parsed.batches) < 1 or parsed.warmup < 0:
        parser.error("--batches are at least 1, --warmup at least 0")
    if parsed.per_device and min(parsed.per_device) < 1:
        parser.error("--per-device are at least 1")
    if not parsed.minutes > 0:
        parser.error("--minutes is above 0")
    if parsed.states and (parsed.device == "cpu" or "f32" in parsed.dtypes):
        parser.error("--states is for --device cuda --dtypes bf16")


def processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
