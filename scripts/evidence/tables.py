"""Tables of what scripts/evidence.sh measured: OUT/tables/*.md, charts and figures.json. Figures only, no text of rows.

    tables.py OUT [--lexicon FILE] [--with NUMBERS]...

NUMBERS is a file of published.py, of other runs: its seeds are pooled with those of OUT, if their settings are the same.
What is not of seeds, as the SFT model, the judges' accuracy or preservation, is OUT's where it has it. Verdicts are those
of the judges that each OUT trained.

Every figure has its 95% interval (stats.py): over prompts, and over seeds where a setting has several.
"""

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path

import published
from markdown import seeds_of, shown, table
from measured import AGAINST, BASELINE, COMPARED, JUDGES, KL, OWN, SETS, accuracy, read, saturated
from rows import lexicon
from stages import Stages
from stats import agreements, difference, interval


class Evidence(Stages):
    """All tables."""

    def leaks(self) -> str:
        rows = []
        for file in sorted((self.out / "results/lint").glob("*/*")):
            report = read(file) if file.suffix != ".part" else None
            if report is None:
                continue
            found: dict = {"rows": report["eval"]["rows"], "leaked_row": 0, "leaked_prompt": 0}
            for finding in report["eval"]["findings"]:
                if finding["check"] in found:
                    found[finding["check"]] += finding["rows"]
            self.figures.setdefault("leaks", {})[f"{file.parent.name}/{file.name}"] = found
            rows.append([file.parent.name, file.name, *map(str, found.values())])
        head = ["training rows", "of these rows", "rows", "leaked_row", "leaked_prompt"]
        notes = "leaked_row: prompt and answers of a training row; leaked_prompt: its prompt, with other answers."
        return table("Leaks between sets of rows", head, rows, notes)

    def diverged(self) -> str:
        found = []
        for config in sorted(self.out.glob("*/*/*/config.toml")):
            if not (config.parent / "summary.json").exists() and (config.parent / "non_finite.jsonl").exists():
                found.append([str(config.parent.relative_to(self.out))])
        self.figures["diverged"] = [row[0] for row in found]
        return table("Runs that met a value that is not finite", ["run"], found, "In no other table.")

    def held_out(self) -> str:
        def own_loss(row):
            return next(iter(row["losses"].values()))

        of_pairs = {
            "reward accuracy": ("%", accuracy),
            "log-ratio chosen": ("", lambda row: row["rho"]["chosen"]),
            "log-ratio rejected": ("", lambda row: row["rho"]["rejected"]),
            "chosen fell": ("%", lambda row: float(row["rho"]["chosen"] < 0)),
            "log pi(chosen) > log pi(rejected)": ("%", lambda row: float(row["d"] > 0)),
        }
        rows = []
        for (name, setting), seeds in self.settings(*SETS).items():
            loss = setting.split("-")[0]
            columns = {title: (unit, partial(self.by_row, figure=figure)) for title, (unit, figure) in of_pairs.items()}
            columns["KL(pi || r), first 64 tokens"] = ("", self.kl)
            columns["samples cut there"] = ("%", partial(self.cut, "kl"))
            expo = loss in ("cexpo", "rexpo")
            columns["saturated"] = ("%", partial(self.by_row, figure=saturated(setting)) if expo else None)
            # Of losses that are not in OWN the rows have DPO's.
            columns["own loss"] = ("", partial(self.by_row, figure=own_loss) if loss in OWN else None)
            cells, figures = [], []
            for title, (unit, figure) in columns.items():
                found = interval({seed: figure(run) for seed, run in seeds.items()}) if figure else None
                figures.append(self.keep("held_out", f"{name}/{setting}", title, found))
                cells.append(shown(found, unit, unit == "%"))
            rows.append([name, setting, seeds_of(figures), *cells])
        head = ["set", "setting", "seeds", *of_pairs, "KL(pi \\|\\| r), first 64 tokens", "samples cut there",
                "saturated", "own loss"]
        notes = (f"Nats. Log-ratios are of whole answers of the data. {KL} A loss is compared with itself only; "
                 "cEXPO's and KTO's are in the table over training. One learning rate for all losses, tuned for none: "
                 "a loss may do better at another.")
        return table("Held-out pairs", head, rows, notes)

    def win_rates(self) -> str:
        rows = []
        settings = {("", "sft"): {"": "sft"}} | self.settings(*COMPARED)
        for against in AGAINST:
            for (_, setting), seeds in settings.items():
                figures = []
                for judge in self.judges():
                    found = interval({seed: self.wins(judge, against, run) for seed, run in seeds.items()})
                    figures.append(self.keep(f"win_rate/{against}", setting, judge, found))
                if any(figures):
                    cut = interval({seed: self.cut("judged", run) for seed, run in seeds.items()})
                    self.keep("answers_cut", setting, "cut", cut)
                    cells = [shown(figure, "%", True) for figure in (cut, *figures)]
                    rows.append([setting, against, seeds_of(figures), *cells])
        head = ["setting", "against", "seeds", "answers cut", *self.judges()]
        notes = ("A tie counts as half. Answers are cut at --max-new-tokens, the SFT model's as well; chosen answers "
                 f"are whole, so a win rate against them is also one of cut answers against whole ones. {JUDGES}")
        return table("Win rates", head, rows, notes)

    def judges_agree(self) -> str:
        judges = self.judges()
        rows = []
        for against in AGAINST:
            for number, one in enumerate(judges):
                for other in judges[number + 1 :]:
                    by_prompt = defaultdict(list)
                    for run in self.runs(*COMPARED):
                        first, second = self.wins(one, against, run), self.wins(other, against, run)
                        for prompt in first:
                            if prompt in second:
                                by_prompt[prompt].append((first[prompt], second[prompt]))
                    if by_prompt:
                        key, items = f"{against}: {one}, {other}", sum(map(len, by_prompt.values()))
                        same, kappa = agreements(list(by_prompt.values()))
                        self.keep("agreement", key, "same", same)
                        self.keep("agreement", key, "kappa", kappa)
                        rows.append([f"{one}, {other}", against, str(items), shown(same, "%"), shown(kappa)])
        head = ["judges", "against", "items", "same verdict", "kappa"]
        notes = f"Items of all runs; intervals by resampling prompts. {JUDGES}"
        made = table("Agreement of the judges", head, rows, notes)
        held = []
        for judge in ("judge0", "judge1"):
            found = interval({0: self.by_row(judge, accuracy)})
            if found:
                held.append([judge, shown(self.keep("judge_accuracy", judge, "accuracy", found), "%")])
        return made + table("Judges on held-out pairs", ["judge", "accuracy"], held)

    def differences(self) -> str:
        settings = {setting: seeds for (_, setting), seeds in self.settings(*COMPARED).items()}
        base = settings.get(BASELINE)
        if not base:
            return ""
        measures = {
            "reward accuracy": ("%", lambda run: self.by_row(run, accuracy)),
            "log-ratio chosen": ("", lambda run: self.by_row(run, lambda row: row["rho"]["chosen"])),
            "KL(pi \\|\\| r), first 64 tokens": ("", self.kl),
        } | {
            f"{judge}, against {against}": ("%", partial(self.wins, judge, against))
            for judge in self.judges()
            for against in AGAINST
        }
        rows = []
        for setting, seeds in settings.items():
            if setting == BASELINE:
                continue
            cells, figures = [], []
            for title, (unit, figure) in measures.items():
                of = [{seed: figure(run) for seed, run in runs.items()} for runs in (seeds, base)]
                found = self.keep("difference", setting, title, difference(*of))
                # Of one seed the interval knows nothing of how much runs differ.
                starred = found and found.seeds > 1 and found.excludes(0)
                cells.append(shown(found, unit) + (" *" if starred else ""))
                figures.append(found)
            rows.append([setting, seeds_of(figures), *cells])
        notes = ("Pair by pair, prompt by prompt, seed by seed. *: the interval excludes 0, with several seeds; many are "
                 "looked at at once. With one seed the interval is over prompts alone, and there is no star.")
        return table(f"Differences from {BASELINE}", ["setting", "seeds", *measures], rows, notes)

    def hours(self) -> str:
        file = self.out / "hours.tsv"
        if not file.is_file():
            return ""
        spent: dict = defaultdict(float)
        with open(file) as text:
            for row in csv.DictReader(text, delimiter="\t"):
                spent[row["stage"]] += float(row["seconds"])
        self.figures["hours"] = {stage: seconds / 3600 for stage, seconds in spent.items()}
        rows = [[stage, f"{seconds / 3600:.2f}"] for stage, seconds in spent.items()]
        return table("Hours", ["stage", "hours"], [*rows, ["all", f"{sum(spent.values()) / 3600:.2f}"]])

    def write(self, place: Path) -> None:
        place.mkdir(exist_ok=True)
        for made in (self.leaks, self.diverged, self.held_out, self.win_rates, self.differences, self.judges_agree,
                     self.diversity, self.degradation, self.preservation, self.soft_labels, self.hours):
            text, file = made(), place / f"{made.__name__}.md"
            if text:
                file.write_text(text)
                print(text, end="")
            else:
                file.unlink(missing_ok=True)
        for name, chart in self.charts.items():
            (place / f"{name}.svg").write_text(chart)
        (place / "figures.json").write_text(json.dumps(self.figures, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lexicon", type=Path)
    parser.add_argument("--with", dest="others", metavar="NUMBERS", type=Path, action="append", default=[])
    args = parser.parse_args(arguments)
    weights, place = lexicon(args.lexicon) if args.lexicon else {}, args.out / "tables"
    if not args.others:
        return Evidence(args.out, weights).write(place)
    if len({file.resolve() for file in args.others}) < len(args.others):
        parser.error("--with: a file is there twice")
    try:
        sources = {str(args.out): published.numbers(args.out, weights)}
        sources |= {str(file): published.read(file) for file in args.others}
        with tempfile.TemporaryDirectory() as pooled:
            published.pooled(sources, Path(pooled))
            Evidence(Path(pooled), weights).write(place)
    except (published.Refused, OSError) as error:
        parser.error(f"--with: {error}")


if __name__ == "__main__":
    main()
