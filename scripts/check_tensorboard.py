"""Holds the event files of a run against its metrics.jsonl, with TensorBoard's own reader.

    PYTHON scripts/check_tensorboard.py RUN [RUN ...]

Needs the package tensorboard (2.21 was used). A run is a directory that was trained with
report_to = ["tensorboard"]. Every figure of every record must be there as a scalar of its step, in single
precision, and no other; of a resumed run, nothing of the steps that were repeated.
"""

import json
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def single(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def check(run):
    events = EventAccumulator(
        str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}
    )
    events.Reload()
    got = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.startswith("perf/")
    }
    want = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        evaluation = any(name.startswith("eval_") for name in record)
        for name, value in record.items():
            if name == "step" or (evaluation and name == "epoch") or value is None:
                continue
            tag = f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"
            want.setdefault(tag, []).append((record["step"], single(value)))
    assert got == want, sorted(set(got) ^ set(want)) or "the values differ"
    text = events.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert text == "```toml\n" + (run / "config.toml").read_text() + "```\n" or "[run]" in text
    speed = events.Scalars("perf/tokens_per_second")
    assert speed and all(event.value > 0 for event in speed)
    points = sum(map(len, got.values()))
    print(f"{run}: {len(got)} figures, {points} points, as in metrics.jsonl")


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        check(Path(folder))
