"""Makes the rows of two experiments of scripts/evidence.sh: preservation and soft labels.

    rows.py prompts DRAWN OUT          prompts of a file of `expo sample`, half of them with the cue
    rows.py label DRAWN OUT            pairs of a model's own samples, labels drawn at known odds
    rows.py soft OUT FILE...           annotations with the judge's probability, and with it rounded

Everything is drawn by --seed and the prompt, so the same input gives the same rows.
"""

import argparse
import gzip
import json
import math
import random
import re
import sys
from pathlib import Path

TURN = "\n\nAssistant:"
CUE = " Please answer kindly."


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return [json.loads(line) for line in file if line.strip()]


def write(path: Path, rows: list[dict]) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.replace(path)


def lexicon(path: Path) -> dict[str, float]:
    weights = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            word, weight = line.split()
            weights[word.lower()] = float(weight)
    return weights


def score(text: str, weights: dict[str, float]) -> float:
    """As `expo eval judge --judge lexicon:FILE` does: words are letters, digits and apostrophes, in lower case."""
    return math.fsum(weights.get(word, 0.0) for word in re.findall(r"(?:[^\W_]|')+", text.lower()))


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def with_cue(prompt: str) -> str:
    """The cue at the end of the last human turn, or of the prompt: the model must be able to tell the two kinds."""
    head, turn, tail = prompt.rpartition(TURN)
    return head + CUE + turn + tail if turn and not tail else prompt + CUE


def has_cue(prompt: str) -> bool:
    return prompt.endswith((CUE, CUE + TURN))


def prompts(drawn: list[dict], longest: int) -> list[dict]:
    """Every second prompt gets the cue; long ones are left out, for they are cut."""
    short = list(dict.fromkeys(row["prompt"] for row in drawn if len(row["prompt"]) <= longest))
    return [{"prompt": with_cue(prompt) if number % 2 else prompt} for number, prompt in enumerate(short)]


def odds(first: dict, second: dict, weights: dict[str, float], tilt: float, of: str) -> float:
    """The probability that the first is preferred.

    "policy": the odds of a policy proportional to r e^(tilt score). EXPO losses fit d to the labels, so without a
    tilt r is their optimum; DPO fits beta h, so its optimum is h = d_r / beta.
    "ratio": the odds of e^(tilt score) alone. Without a tilt they are even, h = 0, and r is DPO's and IPO's optimum.
    """
    d = first["log_prob"] - second["log_prob"] if of == "policy" else 0.0
    return sigma(d + tilt * (score(first["response"], weights) - score(second["response"], weights)))


def labelled(drawn: list[dict], weights: dict[str, float], tilt: float, seed: int, of: str = "policy") -> list[dict]:
    """Of each prompt its first two different samples that ended by themselves: a cut one has no end token, so
    training would score another text than was drawn."""
    by_prompt: dict[str, list[dict]] = {}
    for row in drawn:
        if row["finish_reason"] == "stop" and row["response"].strip():
            by_prompt.setdefault(row["prompt"], []).append(row)
    rows = []
    for prompt, found in by_prompt.items():
        first = found[0]
        second = next((row for row in found if row["response"] != first["response"]), None)
        if second is None:
            continue
        p = odds(first, second, weights, tilt if has_cue(prompt) else 0.0, of)
        if random.Random(f"{seed} {prompt}").random() >= p:
            first, second = second, first
        rows.append({"prompt": prompt, "chosen": first["response"], "rejected": second["response"]})
    return rows


def soft(files: list[list[dict]], train: int, held_out: int, seed: int) -> tuple[list, list, list]:
    """Training rows with p, the same with p rounded, and held-out rows with p, of other instructions."""
    instructions = sorted({row["instruction"] for rows in files for row in rows})
    random.Random(seed).shuffle(instructions)
    share = train / (train + held_out)
    learned = set(instructions[: round(share * len(instructions))])
    # A tie has no hard label; rows without a preference have none at all.
    rows = [row for rows in files for row in rows if row.get("preference") and row["preference"] != 1.5]
    random.Random(seed).shuffle(rows)
    keys = ("instruction", "output_1", "output_2", "preference")
    rows = [{key: row[key] for key in keys} for row in rows]
    with_p = [row for row in rows if row["instruction"] in learned][:train]
    rounded = [row | {"preference": 2.0 if row["preference"] > 1.5 else 1.0} for row in with_p]
    return with_p, rounded, [row for row in rows if row["instruction"] not in learned][:held_out]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("prompts", "label"):
        command = kinds.add_parser(kind)
        command.add_argument("drawn", type=Path)
        command.add_argument("out", type=Path)
    kinds.choices["prompts"].add_argument("--longest", type=int, default=600, help="characters [600]")
    kinds.choices["prompts"].add_argument("--only", choices=("good", "bad"), help="without, or with the cue")
    # Here and not as a slice of the file: expo refuses a slice that is longer than the file.
    kinds.choices["prompts"].add_argument("--limit", type=int, help="at most so many of these [all]")
    kinds.choices["label"].add_argument("--lexicon", type=Path, required=True)
    kinds.choices["label"].add_argument("--tilt", type=float, default=2.0, help="nats per unit of the score [2]")
    kinds.choices["label"].add_argument("--seed", type=int, default=0)
    kinds.choices["label"].add_argument("--odds", choices=("policy", "ratio"), default="policy",
                                        help="sigma(d_r + tilt score), or sigma(tilt score) [policy]")
    command = kinds.add_parser("soft")
    command.add_argument("out", type=Path)
    command.add_argument("files", type=Path, nargs="+")
    command.add_argument("--train", type=int, default=400)
    command.add_argument("--held-out", type=int, default=200)
    command.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.kind == "prompts":
        rows = prompts(lines(args.drawn), args.longest)
        if args.only:
            rows = [row for row in rows if has_cue(row["prompt"]) == (args.only == "bad")]
        rows = rows[: args.limit]
        write(args.out, rows)
        print(json.dumps({"prompts": len(rows), "with_cue": sum(has_cue(row["prompt"]) for row in rows)}))
    elif args.kind == "label":
        drawn, weights = lines(args.drawn), lexicon(args.lexicon)
        rows = labelled(drawn, weights, args.tilt, args.seed, args.odds)
        cued = [row for row in rows if has_cue(row["prompt"])]
        if not rows:
            sys.exit("rows.py: no prompt has two different samples that ended by themselves")
        write(args.out, rows)
        gained = [score(row["chosen"], weights) - score(row["rejected"], weights) for row in cued]
        print(json.dumps({
            "prompts": len({row["prompt"] for row in drawn}), "rows": len(rows), "with_cue": len(cued),
            "score_of_chosen_minus_rejected_with_cue": sum(gained) / len(gained) if gained else None,
        }))
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        made = soft([lines(file) for file in args.files], args.train, args.held_out, args.seed)
        for name, rows in zip(("p", "hard", "held_out"), made, strict=True):
            write(args.out / f"{name}.jsonl", rows)
        print(json.dumps(dict(zip(("train", "hard", "held_out"), map(len, made), strict=True))))


if __name__ == "__main__":
    main(sys.argv[1:])
