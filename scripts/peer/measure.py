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
    order = SimpleNamespace(**json.loads(parser.parse_args().order.read_text()))
    order.rows = [json.loads(line) for line in Path(order.data).read_text().splitlines()]
    return order


def tokenizer(order: SimpleNamespace):
    """The model's tokenizer, padding with its end token."""
    from transformers import PreTrainedTokenizerFast

    path = str(Path(order.model) / "tokenizer.json")
    return PreTrainedTokenizerFast(tokenizer_file=path, eos_token=END, pad_token=END)


class Steps:
    """What each step took, and the tokens it had: with each prompt once, and in all positions that
    were computed, padding included."""

    def __init__(self):
        self.seconds, self.cpu_seconds, self.losses = [], [], []
        self.tokens, self.positions = [], []

    def begin(self):
        self.start = time.perf_counter(), time.process_time()

    def end(self):
        self.seconds.append(time.perf_counter() - self.start[0])
        self.cpu_seconds.append(time.process_time() - self.start[1])

    def count(self, tokens: int, positions: int):
        self.tokens.append(tokens)
        self.positions.append(positions)

    def print(self, **versions: str):
        del self.start
        print(json.dumps(vars(self) | {"peak_memory_bytes": peak_memory(), "versions": versions}))


def peak_memory() -> int | None:
    """The most memory this process has held, where the system says so (Linux)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else None
