"""What a directory of scripts/evidence.sh has: its runs, and figures of them by row, prompt and seed."""

import json
from collections import defaultdict
from pathlib import Path

import published
from rows import sigma
from stats import Interval, mean

COMPARED = ("main", "once", "knobs")
SETS = (*COMPARED, "questions", "reverse")
BASELINE = "dpo-beta=0.1"
# Answers of the SFT model have the same limit of tokens; chosen ones are whole.
AGAINST = ("sft", "chosen")
JUDGES = ("judge0 and judge1 are DPO's rewards log pi - log r, trained from the SFT model that the policies start "
          "from, on rows and seeds of their own: independent neither of each other nor of the policies.")
KL = ("KL(pi || r) is of the first 64 tokens of the policy's samples, where longer ones are cut: its size is not "
      "comparable with theirs.")
# The losses that evidence.sh evaluates with the knobs of the run.
OWN = ("rexpo", "dpo", "ipo", "fdpo", "simpo")


def lines(path: Path) -> list[dict]:
    return published.lines(path) if path.is_file() else []


def read(path: Path):
    return json.loads(path.read_text()) if path.is_file() else None


def accuracy(row: dict) -> float:
    """Of one pair; a tie counts as half."""
    return float(row["h"] > 0) + 0.5 * (row["h"] == 0)


def by_prompt(rows: list[dict], figure) -> dict[str, float]:
    """The mean of a figure over the samples of each prompt."""
    found = defaultdict(list)
    for row in rows:
        found[row["prompt"]].append(figure(row))
    return {prompt: mean(values) for prompt, values in found.items()}


def share_cut(rows: list[dict]) -> dict[str, float]:
    return by_prompt(rows, lambda row: float(row["finish_reason"] == "length"))


def log_ratio(row: dict) -> float:
    return row["log_prob"] - row["reference_log_prob"]


def saturated(setting: str):
    """Whether the loss of a setting is flat at a row: the slope of sigma(d - margin) is below 1e-4, as in metrics."""
    knobs = dict(knob.split("=") for knob in setting.split("-")[1:])

    def figure(row: dict) -> float:
        d = row["d"]
        if knobs.get("length_normalized") == "true":
            d = (row["log_probs"]["chosen"] / row["tokens"]["chosen"]
                 - row["log_probs"]["rejected"] / row["tokens"]["rejected"])
        z = d - float(knobs.get("margin", 0))
        return float(sigma(z) * sigma(-z) < 1e-4)

    return figure


class Measured:
    """What a directory of scripts/evidence.sh has."""

    def __init__(self, out: Path, weights: dict[str, float]):
        self.out, self.weights = out, weights
        self.figures: dict = {}
        self.charts: dict[str, str] = {}

    def runs(self, *sets: str) -> list[str]:
        found = [path.parent for name in sets for path in self.out.glob(f"{name}/*/*/summary.json")]
        return sorted(str(path.relative_to(self.out)) for path in found)

    def settings(self, *sets: str) -> dict[tuple[str, str], dict[str, str]]:
        """Runs by (set, setting) and seed, in the order of the sets."""
        found: dict = defaultdict(dict)
        for name in sets:
            for run in self.runs(name):
                _, seed, setting = run.split("/")
                found[name, setting][seed] = run
        return found

    def keep(self, table: str, of: str, figure: str, value: Interval | None) -> Interval | None:
        if value is not None:
            self.figures.setdefault(table, {}).setdefault(of, {})[figure] = value._asdict()
        return value

    # Per pair, of one run.

    def pairs(self, run: str) -> list[dict]:
        return lines(self.out / "pairs" / f"{run}.jsonl")

    def by_row(self, run: str, figure) -> dict[int, float]:
        return {row["row"]: figure(row) for row in self.pairs(run)}

    def kl(self, run: str) -> dict[str, float]:
        """Per prompt: the mean of log pi - log r over its answers, which are cut at 64 tokens."""
        return by_prompt(lines(self.out / "draws/kl" / f"{run}.jsonl"), log_ratio)

    def cut(self, kind: str, run: str) -> dict[str, float]:
        """Per prompt: the share of its samples in draws/KIND that met the limit of tokens."""
        return share_cut(lines(self.out / "draws" / kind / f"{run}.jsonl"))

    def wins(self, judge: str, against: str, run: str) -> dict[str, float]:
        value = {"win": 1.0, "tie": 0.5, "loss": 0.0}
        rows = lines(self.out / "verdicts" / judge / against / f"{run}.jsonl")
        return {row["prompt"]: value[row["outcome"]] for row in rows if row["outcome"] in value}

    def judges(self) -> list[str]:
        place = self.out / "verdicts"
        return sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
