"""The numbers behind the tables, of each row and run, without any text: what may be published and pooled.

    published.py OUT FILE --lexicon FILE       writes those of a directory of scripts/evidence.sh

FILE has a line per file of OUT: {"path": .., "columns": {NAME: [..]}}, with 4 decimals. A prompt is the beginning of
its hash, an answer of the preservation stage is its score. tables.py --with FILE reads them beside those of OUT.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

from rows import lexicon, score, write

RUN = r"(main|once|knobs|questions|reverse)/seed[^/]+/[^/]+"
# What the tables read: files by pattern, and their columns. Rows are flattened: rho/chosen is row["rho"]["chosen"].
KEPT = {
    r"pairs/.+\.jsonl": r"row|label|(rho|log_probs|tokens|losses)/.+",
    r"draws/(kl|judged|preserve)/.+\.jsonl": r"prompt|finish_reason|log_prob|reference_log_prob",
    r"verdicts/.+\.jsonl": r"prompt|outcome",
    r"diversity/.+\.jsonl": r"model|prompt|entropy_.+|self_bleu_4|distinct_.|tokens|stopped",
    r"preserve/sft-(good|bad)\.jsonl": r"prompt|finish_reason|log_prob|reference_log_prob",
    r"preserve/scores/.+\.jsonl": r"row|sampled",
    r"soft/rows/(p|held_out)\.jsonl": r"preference",
    # As they are: names of metrics have slashes.
    r"[^/]+/[^/]+/[^/]+/metrics\.jsonl": r"step|eval_.+",
    r"hours\.tsv": "lines",
    r"results/lint/.+/.+": "eval",
    r"results/diversity/t.+": "prompts|models",
    r"(sft|[^/]+/[^/]+/[^/]+)/run\.json": "settings",
    # Whether a run ended, or met a value that is not finite.
    r"[^/]+/[^/]+/[^/]+/(summary\.json|config\.toml|non_finite\.jsonl)": "",
}
# Settings that may differ where runs are pooled; what depends on the SFT model, which each OUT makes anew.
OF_MACHINE = {"expo", "run.seed", "model.device"}
OF_SFT = {"model.model_name_or_path", "model.reference", "data.reference_log_probs", "data.samples", "data.train",
          "data.eval"}
SCORED = r"draws/preserve/.+|preserve/sft-.+"


class Refused(ValueError):
    """Numbers that cannot be read, or not be pooled."""


def columns_of(path: str) -> str | None:
    """The pattern of the columns that are kept of a file; None of a file that is not."""
    return next((columns for pattern, columns in KEPT.items() if re.fullmatch(pattern, path)), None)


def prompt_hash(text: str) -> str:
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


def lines(path: Path) -> list[dict]:
    """Without a last line that a kill left unfinished."""
    whole, end, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in (whole + end).splitlines() if line.strip()]


def of_report(path: str, report: dict) -> dict:
    """A report as one row: of lint the counts, of diversity the figures of each model, of a run its settings."""
    if path.startswith("results/lint"):
        found = [{"check": finding["check"], "rows": finding["rows"]} for finding in report["eval"]["findings"]]
        return {"eval": {"rows": report["eval"]["rows"], "findings": found}}
    if path.endswith("run.json"):
        other = OF_MACHINE if path.startswith("sft/") else OF_MACHINE | OF_SFT
        return {"settings": {name: value for name, value in report["frozen"].items() if name not in other}}
    models = [
        {"name": model["name"]} | {name: value for name, value in model.items() if isinstance(value, dict | None)}
        for model in report["models"]
    ]
    return {"prompts": report["prompts"], "models": models}


def of_rows(path: str, rows: list[dict], kept: str, weights: dict[str, float]) -> dict[str, list]:
    """The columns whose names match `kept`; None where a row lacks one."""
    found, is_metrics = [], path.endswith("metrics.jsonl")
    for row in rows:
        if is_metrics and "eval_loss" not in row:
            continue
        parts = row if is_metrics else flat(row)
        values = {name: value for name, value in parts.items() if re.fullmatch(kept, name)}
        if "prompt" in values:
            values["prompt"] = prompt_hash(values["prompt"])
        if "sampled" in values:
            values["sampled"] = [{"log_prob": sample["log_prob"]} for sample in values["sampled"] or []]
        if re.fullmatch(SCORED, path):
            values["score"] = score(row["response"], weights)
        found.append(values)
    names = dict.fromkeys(name for values in found for name in values)
    return {name: [values.get(name) for values in found] for name in names}


def numbers(out: Path, weights: dict[str, float]) -> list[dict]:
    """Of each file that the tables read its columns."""
    found = []
    for file in sorted(path for path in out.rglob("*") if path.is_file() and path.suffix != ".part"):
        path = str(file.relative_to(out))
        kept = columns_of(path)
        if kept is None or (file.name == "metrics.jsonl" and not (file.parent / "summary.json").exists()):
            continue
        if path == "hours.tsv":
            columns: dict[str, list] = {"lines": file.read_text().splitlines()}
        elif path.startswith("results/") or path.endswith("run.json"):
            columns = {name: [value] for name, value in of_report(path, json.loads(file.read_text())).items()}
        else:
            columns = of_rows(path, lines(file), kept, weights) if kept else {}
        found.append({"path": path, "columns": rounded(columns)})
    return found


def read(file: Path) -> list[dict]:
    """The numbers of a file, whose paths and columns are those of `numbers`."""
    found = []
    for number, text in enumerate(file.read_text().splitlines(), 1):
        try:
            line = json.loads(text)
            path, columns = line["path"], line["columns"]
            if columns_of(path) is None or ".." in path.split("/") or len({len(c) for c in columns.values()}) > 1:
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(f"{file}:{number}: is not a line of published.py") from error
        found.append(line)
    return found


def unit(path: str) -> str:
    """What is taken from one source as a whole: a run, or a stage that is not of seeds."""
    run = re.search(RUN, path.removesuffix(".jsonl"))
    if run:
        return run.group()
    return next((stage for stage in ("preserve", "soft", "diversity") if re.search(rf"(^|/){stage}/", path)), "shared")


def pooled(sources: dict[str, list[dict]], out: Path) -> None:
    """Makes the files that the tables read of several sources. Runs are pooled, and hours; what is not of seeds, as the
    SFT model, the judges or preservation, is the first source's that has it.

    Raises Refused where two sources have a run with one name and seed, or runs with other settings.
    """
    taken: dict[str, str] = {}
    settings: dict[str, tuple[str, dict]] = {}
    hours: dict[str, None] = {}
    for source, files in sources.items():
        for name in {unit(file["path"]) for file in files}:
            first = taken.setdefault(name, source)
            if first != source and re.fullmatch(RUN, name):
                raise Refused(f"{name} is in {first} and in {source}: pool other seeds")
        for file in files:
            path, columns = file["path"], file["columns"]
            if path == "hours.tsv":
                hours |= dict.fromkeys(columns["lines"])
                continue
            if path.endswith("run.json"):
                if path != "sft/run.json" and not re.fullmatch(RUN, unit(path)):
                    continue
                of = re.sub("/seed[^/]+", "", path)
                first, known = settings.setdefault(of, (source, columns["settings"][0]))
                for key in known | columns["settings"][0]:
                    if known.get(key) != columns["settings"][0].get(key):
                        raise Refused(f"{of.removesuffix('/run.json')}: {key} is not the same in {first} and {source}")
                continue
            if taken[unit(path)] == source:
                restore(out / path, path, columns)
    if hours:
        (out / "hours.tsv").write_text("".join(f"{line}\n" for line in hours))


def restore(file: Path, path: str, columns: dict[str, list]) -> None:
    """Writes a file of OUT from its columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if path.startswith("results/"):
        file.write_text(json.dumps({name: values[0] for name, values in columns.items()}))
        return
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    present = [{name: value for name, value in row.items() if value is not None} for row in rows]
    made = present if path.endswith("metrics.jsonl") else [with_margins(nested(row)) for row in present]
    file.write_text("".join(json.dumps(row) + "\n" for row in made))


def with_margins(row: dict) -> dict:
    """A pair with what follows from its log-probs."""
    for made, of in (("h", "rho"), ("d", "log_probs")):
        if of in row:
            row[made] = row[of]["chosen"] - row[of]["rejected"]
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lexicon", type=Path, required=True)
    args = parser.parse_args(arguments)
    write(args.file, numbers(args.out, lexicon(args.lexicon)))


if __name__ == "__main__":
    main()
