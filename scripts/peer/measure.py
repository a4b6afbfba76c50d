"""What the Python peers share: the order they work to, the clock of a step, their line of JSON."""

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace

from rows import END


def order() -> SimpleNamespace:
    """The file that says what to run, written by compare.py."""
    parser = argparse.ArgumentParser()
    parser.add_argument("order", type=Path)
    order = SimpleNamespace(**{"end": END} | json.loads(parser.parse_args().order.read_text()))
    order.rows = [json.loads(line) for line in Path(order.data).read_text().splitlines()]
    return order


def tokenizer(order: SimpleNamespace):
    """The model's tokenizer, padding with its end token."""
    from transformers import PreTrainedTokenizerFast

    path = str(Path(order.model) / "tokenizer.json")
    return PreTrainedTokenizerFast(tokenizer_file=path, eos_token=order.end, pad_token=order.end)


class Steps:
    """What each step took, and the tokens it had: with each prompt once, and in all positions that
    were computed, padding included. A step ends when the device has done it."""

    def __init__(self, device: str):
        self.gpu = device == "cuda"
        self.seconds, self.cpu_seconds, self.losses = [], [], []
        self.tokens, self.positions = [], []

    def begin(self):
        self.wait()
        self.start = time.perf_counter(), time.process_time()

    def end(self):
        self.wait()
        self.seconds.append(time.perf_counter() - self.start[0])
        self.cpu_seconds.append(time.process_time() - self.start[1])

    def wait(self):
        if self.gpu:
            import torch

            torch.cuda.synchronize()

    def count(self, tokens: int, positions: int):
        self.tokens.append(tokens)
        self.positions.append(positions)

    def sum_counts(self, parts: int):
        """Makes one count of each `parts`, of the steps that were done."""
        ends = [parts * step for step in range(len(self.seconds) + 1)]
        spans = list(zip(ends, ends[1:]))
        self.tokens = [sum(self.tokens[begin:end]) for begin, end in spans]
        self.positions = [sum(self.positions[begin:end]) for begin, end in spans]

    def print(self, **versions: str):
        names = ("seconds", "cpu_seconds", "losses", "tokens", "positions")
        measured = {name: getattr(self, name) for name in names}
        memory = {"peak_memory_bytes": peak_memory()} | (gpu_memory() if self.gpu else {})
        print(json.dumps(measured | memory | {"versions": versions}))


def gpu_memory() -> dict[str, int]:
    """The most that tensors have taken of the GPU, and that was held for them."""
    import torch

    return {
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(),
        "reserved_gpu_memory_bytes": torch.cuda.max_memory_reserved(),
    }


def peak_memory() -> int | None:
    """The most memory this process has held, where the system says so (Linux)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else None
