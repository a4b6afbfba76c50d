"""The numbers behind the tables, of each row and run, without any text: what may be published and pooled.

    published.py OUT FILE [--lexicon FILE]       writes those of a directory of scripts/evidence.sh

FILE has a line per file of OUT: {"path": .., "columns": {NAME: [..]}}, with 4 decimals. A prompt is the beginning of
its hash, an answer of the preservation stage is its score. tables.py --with FILE reads them beside those of OUT.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

from rows import lexicon, lines, score

# What the tables read: files by pattern, and their columns. Rows are flattened: rho/chosen is row["rho"]["chosen"].
KEPT = {
    r"pairs/.+\.jsonl": r"row|label|(rho|log_probs|tokens|losses)/.+",
    r"draws/(kl|judged|preserve)/.+\.jsonl": r"prompt|finish_reason|log_prob|reference_log_prob",
    r"verdicts/.+\.jsonl": r"prompt|outcome",
    r"diversity/.+\.jsonl": r"model|prompt|entropy_.+|self_bleu_4|distinct_.|tokens|stopped",
    r"[^/]+/[^/]+/[^/]+/metrics\.jsonl": r"step|eval_.+",
    r"preserve/sft-(good|bad)\.jsonl": r"prompt|finish_reason|log_prob|reference_log_prob",
    r"preserve/scores/.+\.jsonl": r"row|sampled",
    r"soft/rows/(p|held_out)\.jsonl": r"preference",
    r"hours\.tsv": r".+",
    r"results/lint/.+/.+": r"eval",
    r"results/diversity/t.+": r"prompts|models",
    # Whether a run ended, or met a value that is not finite.
    r"[^/]+/[^/]+/[^/]+/(summary\.json|config\.toml|non_finite\.jsonl)": "",
}
SCORED = r"draws/preserve/.+|preserve/sft-.+"


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flat(row: dict, before: str = "") -> dict:
    found = {}
    for name, value in row.items():
        found |= flat(value, f"{before}{name}/") if isinstance(value, dict) else {before + name: value}
    return found


def nested(row: dict) -> dict:
    found: dict = {}
    for name, value in row.items():
        *place, last = name.split("/")
        inner = found
        for part in place:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return found


def rounded(value):
    match value:
        case float():
            return round(value, 4)
        case list():
            return [rounded(part) for part in value]
        case dict():
            return {name: rounded(part) for name, part in value.items()}
    return value


def of_report(path: str, report: dict) -> dict:
    """A report as one row: of lint the counts, of diversity the figures of each model."""
    if path.startswith("results/lint"):
        found = [{"check": finding["check"], "rows": finding["rows"]} for finding in report["eval"]["findings"]]
        return {"eval": {"rows": report["eval"]["rows"], "findings": found}}
    models = [
        {"name": model["name"]} | {name: value for name, value in model.items() if isinstance(value, dict | None)}
        for model in report["models"]
    ]
    return {"prompts": report["prompts"], "models": models}


def numbers(out: Path, weights: dict[str, float]) -> list[dict]:
    """Of each file that the tables read its columns."""
    found = []
    for file in sorted(path for path in out.rglob("*") if path.is_file() and path.suffix != ".part"):
        path = str(file.relative_to(out))
        kept = next((names for pattern, names in KEPT.items() if re.fullmatch(pattern, path)), None)
        if kept is None:
            continue
        if path == "hours.tsv":
            columns = {"lines": file.read_text().splitlines()}
        elif path.startswith("results/"):
            columns = {name: [value] for name, value in of_report(path, json.loads(file.read_text())).items()}
        else:
            columns = of_rows(path, lines(file), kept, weights) if kept else {}
        found.append({"path": path, "columns": rounded(columns)})
    return found


def of_rows(path: str, rows: list[dict], kept: str, weights: dict[str, float]) -> dict[str, list]:
    """The columns whose names match `kept`; None where a row lacks one."""
    found = []
    for row in rows:
        if path.endswith("metrics.jsonl") and "eval_loss" not in row:
            continue
        values = {name: value for name, value in flat(row).items() if re.fullmatch(kept, name)}
        if "prompt" in values:
            values["prompt"] = short(values["prompt"])
        if "sampled" in values:
            values["sampled"] = [{"log_prob": sample["log_prob"]} for sample in values["sampled"] or []]
        if re.fullmatch(SCORED, path):
            values["score"] = score(row["response"], weights)
        found.append(values)
    names = dict.fromkeys(name for values in found for name in values)
    return {name: [values.get(name) for values in found] for name in names}


def put(files: list[dict], out: Path) -> None:
    """Makes the files that the tables read. What is there stays as it is: of two with one name the first is taken,
    as of the SFT model or a judge."""
    for file in files:
        path, columns = out / file["path"], file["columns"]
        if path.name == "hours.tsv":  # of all
            with open(path, "a") as hours:
                hours.writelines(f"{line}\n" for line in columns["lines"][1 if hours.tell() else 0 :])
            continue
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if file["path"].startswith("results/"):
            path.write_text(json.dumps({name: values[0] for name, values in columns.items()}))
        elif columns:
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            made = [whole(nested({name: value for name, value in row.items() if value is not None})) for row in rows]
            path.write_text("".join(json.dumps(row) + "\n" for row in made))
        else:
            path.touch()


def whole(row: dict) -> dict:
    """A pair with what follows from its log-probs."""
    for made, of in (("h", "rho"), ("d", "log_probs")):
        if of in row:
            row[made] = row[of]["chosen"] - row[of]["rejected"]
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lexicon", type=Path)
    args = parser.parse_args(arguments)
    found = numbers(args.out, lexicon(args.lexicon) if args.lexicon else {})
    args.file.write_text("".join(json.dumps(file, separators=(",", ":")) + "\n" for file in found))


if __name__ == "__main__":
    main()
