"""Tables of what scripts/evidence.sh measured: OUT/tables/*.md and figures.json. Figures only, no text of rows.

    tables.py OUT [--lexicon FILE] [--with NUMBERS]...

NUMBERS is a file of published.py, of other runs: its seeds are pooled with those of OUT, if their settings are the same.
What is not of seeds, as the SFT model, the judges' accuracy or preservation, is OUT's where it has it. Verdicts are those
of the judges that each OUT trained.

Every figure has its 95% interval (stats.py): over prompts, and over seeds where a setting has several.
"""

import argparse
import csv
import json
import math
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path

import published
from rows import lexicon, score, sigma
from stats import Interval, agreements, best_of, difference, interval, mean, student, variance

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


def shown(figure: Interval | None, unit: str = "", share: bool = False) -> str:
    """With its unit; the interval of a share ends at 0 and 1."""
    if figure is None:
        return "-"
    if share:
        figure = figure._replace(low=max(figure.low, 0.0), high=min(figure.high, 1.0))
    scale, digits = (100, 1) if unit == "%" else (1, 2)
    value, low, high = (f"{scale * number:.{digits}f}" for number in figure[:3])
    return f"{value}{unit} ({low} to {high})"


def table(title: str, head: list[str], rows: list[list[str]], notes: str = "") -> str:
    if not rows:
        return ""
    body = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    rule = "|" + "---|" * len(head) + "\n"
    return f"## {title}\n\n" + (notes + "\n\n" if notes else "") + "| " + " | ".join(head) + " |\n" + rule + body + "\n"


def seeds_of(figures: list[Interval | None]) -> str:
    """The number of seeds of a row's figures: an evaluation may lack runs that others have."""
    counts = sorted({figure.seeds for figure in figures if figure})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "-"


def over_seeds(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    half = student(len(values) - 1) * math.sqrt(variance(values) / len(values))
    return f"{mean(values):.3f} ± {half:.3f}"


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


class Evidence:
    """What a directory of scripts/evidence.sh has."""

    def __init__(self, out: Path, weights: dict[str, float]):
        self.out, self.weights = out, weights
        self.figures: dict = {}

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

    # Tables.

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

    def judges(self) -> list[str]:
        place = self.out / "verdicts"
        return sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []

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

    def diversity(self) -> str:
        columns = {
            "entropy_monte_carlo": "", "entropy_softmax": "", "self_bleu_4": "%", "distinct_1": "%", "distinct_2": "%",
            "tokens": "", "stopped": "%",
        }
        rows = []
        for file in sorted((self.out / "results/diversity").glob("t*")):
            report = read(file) if file.suffix != ".part" else None
            for model in (report or {}).get("models", []):
                cells = []
                for column, unit in columns.items():
                    found = model.get(column)
                    found = found and Interval(found["value"], found["low"], found["high"], report["prompts"], 1)
                    cells.append(shown(self.keep(f"diversity/{file.name}", model["name"], column, found), unit))
                rows.append([file.name[1:], model["name"], *cells])
        notes = "Of each prompt's samples, nucleus 0.95; intervals over prompts."
        made = table("Diversity", ["temperature", "model", *columns], rows, notes)
        rows = []
        for file in sorted((self.out / "diversity").glob("t*.jsonl")):
            by_model: dict = defaultdict(list)
            for line in lines(file):
                by_model[line["model"]].append(line)
            for model in by_model:
                if model == BASELINE or BASELINE not in by_model:
                    continue
                cells = []
                for column, unit in columns.items():
                    one, other = ({
                        line["prompt"]: float(line[column]) for line in by_model[name] if line.get(column) is not None
                    } for name in (model, BASELINE))
                    found = difference({0: one}, {0: other})
                    cells.append(shown(self.keep(f"diversity_difference/{file.stem}", model, column, found), unit))
                rows.append([file.stem[1:], model, *cells])
        notes = "Prompt by prompt; intervals over prompts, one seed."
        head = ["temperature", "model", *columns]
        return made + table(f"Diversity, differences from {BASELINE}", head, rows, notes)

    def degradation(self) -> str:
        names = ("eval_loss", "eval_entropy", "eval_sampled_kl", "eval_log_ratios/chosen", "eval_log_ratios/rejected",
                 "eval_rewards/accuracies_ties_half", "eval_saturated")
        found: dict = defaultdict(lambda: defaultdict(list))
        for (name, setting), seeds in self.settings(*COMPARED).items():
            for run in seeds.values():
                for line in lines(self.out / run / "metrics.jsonl"):
                    if "eval_loss" in line:
                        for figure in names:
                            if line.get(figure) is not None:
                                found[setting, line["step"]][figure].append(line[figure])
        rows = []
        for (setting, step), figures in found.items():
            cells = [over_seeds(figures[name]) for name in names]
            rows.append([setting, str(step), str(max(map(len, figures.values()))), *cells])
            self.figures.setdefault("degradation", {}).setdefault(setting, {})[step] = dict(figures)
        head = ["setting", "step", "seeds", *(name.removeprefix("eval_") for name in names)]
        notes = ("Means over seeds, with the 95% interval of the mean where there are several. Log-ratios are of whole "
                 "answers of the data, sampled_kl of the first 64 tokens of the policy's answers.")
        return table("Over training", head, rows, notes)

    def preservation(self) -> str:
        place = self.out / "preserve"
        start = {kind: lines(place / f"sft-{kind}.jsonl") for kind in ("good", "bad")}
        if not all(start.values()):
            return ""

        def of_text(row):
            return row["score"] if "score" in row else score(row["response"], self.weights)

        def scored(name):
            rows = lines(place / "scores" / f"{name}.jsonl")
            return {row["row"]: [sample["log_prob"] for sample in row["sampled"]] for row in rows if row.get("sampled")}

        before, reference = by_prompt(start["bad"], of_text), scored("sft")
        rows = []
        for run in self.runs("preserve"):
            run = run.removeprefix("preserve/")
            labels, name = run.split("/")
            drawn = {kind: lines(self.out / "draws/preserve" / kind / f"{run}.jsonl") for kind in ("good", "bad")}
            if not all(drawn.values()):
                continue
            policy = scored(run)
            forward = {
                row: mean([r - pi for r, pi in zip(reference[row], policy[row], strict=True)])
                for row in reference
                if row in policy
            }
            figures = {
                "good: KL(pi || r)": ("", interval({0: by_prompt(drawn["good"], log_ratio)})),
                "good: KL(r || pi)": ("", interval({0: forward})),
                "good: cut": ("%", interval({0: share_cut(drawn["good"])})),
                "bad: KL(pi || r)": ("", interval({0: by_prompt(drawn["bad"], log_ratio)})),
                "bad: gain in score": ("", difference({0: by_prompt(drawn["bad"], of_text)}, {0: before})),
                "bad: cut": ("%", interval({0: share_cut(drawn["bad"])})),
            }
            # What a loss fits to the labels: EXPO's the policy, the others its ratio to r.
            optimal = "yes" if (labels == "policy") == (name.split("-")[0] in ("cexpo", "rexpo")) else "no"
            cells = [
                shown(self.keep("preservation", run, key, value), unit, unit == "%")
                for key, (unit, value) in figures.items()
            ]
            rows.append([labels, name, optimal, *cells])
        head = ["labels", "setting", "good: r is optimal", "good: KL(pi \\|\\| r)", "good: KL(r \\|\\| pi)",
                "good: cut", "bad: KL(pi \\|\\| r)", "bad: gain in score", "bad: cut"]
        cut = {kind: shown(interval({0: share_cut(found)}), "%", True) for kind, found in start.items()}
        notes = ("Labels `policy` are drawn at sigma(d_r + tilt score), labels `ratio` at sigma(tilt score), where score is "
                 "the difference of two answers' scores, and 0 on good prompts. There the optimum of the EXPO "
                 "losses under `policy` is r; DPO's is h = d_r / beta and IPO's h = (2 p - 1) / (2 beta), so they must "
                 "leave r. Under `ratio` p = 1/2 there: r is the optimum of DPO and IPO, and that of the EXPO losses "
                 "lies between r and even odds. A distance on good prompts counts as failed preservation only where r "
                 "is optimal.\n\n"
                 "KL in nats of the first 64 tokens; cut: the share of samples that go on, of the SFT model's own "
                 f"{cut['good']} on good and {cut['bad']} on bad prompts. Intervals over prompts, one seed. One learning "
                 "rate for all losses, untuned.")
        made = table("Preservation", head, rows, notes)

        # best of n from the start, on the bad prompts
        of = defaultdict(list)
        for row in start["bad"]:
            of[row["prompt"]].append(of_text(row))
        fewest = min(map(len, of.values()))
        rows = []
        for n in (1, 2, 4, 8):
            if n <= fewest:
                gain = {prompt: best_of(values, n) - mean(values) for prompt, values in of.items()}
                found = self.keep("best_of_n", str(n), "gain", interval({0: gain}))
                rows.append([str(n), f"{math.log(n) - (n - 1) / n:.2f}", shown(found)])
        return made + table("Best of n of the SFT model, bad prompts", ["n", "KL, at most", "gain in score"], rows)

    def soft_labels(self) -> str:
        def loss_of(run, row):
            if run.startswith("rexpo"):
                abar = {side: row["log_probs"][side] / row["tokens"][side] for side in ("chosen", "rejected")}
                margin = abar["chosen"] - abar["rejected"]
            else:
                margin = 0.1 * row["h"]
            # log sigma by softplus: it does not overflow
            log_p = -math.log1p(math.exp(-margin)) if margin > -700 else margin
            log_q = -math.log1p(math.exp(margin)) if margin < 700 else -margin
            return -row["label"] * log_p - (1 - row["label"]) * log_q

        def figures(run):
            name = run.split("/")[-1]
            return {0: {row["row"]: loss_of(name, row) for row in self.pairs(run)}}

        runs = {tuple(run.split("/")[1:]): run for run in self.runs("soft")}
        rows = []
        for setting in sorted({setting for _, setting in runs}):
            one, other = (figures(runs[kind, setting]) if (kind, setting) in runs else {} for kind in ("p", "hard"))
            if one and other and one[0]:
                found = [interval(one), interval(other), difference(one, other)]
                for key, value in zip(("soft", "hard", "soft - hard"), found, strict=True):
                    self.keep("soft_labels", setting, key, value)
                rows.append([setting, *map(shown, found)])
        held_out = next((self.pairs(run) for run in runs.values()), [])
        base = lines(self.out / "soft/rows/p.jsonl")
        if rows and held_out and base:
            # The label of the row as expo reads it is of the answer that the row has as chosen.
            p = mean([row["preference"] - 1 for row in base])
            labels = [row["preference"] - 1 for row in lines(self.out / "soft/rows/held_out.jsonl")]
            constant = {i: -label * math.log(p) - (1 - label) * math.log(1 - p) for i, label in enumerate(labels)}
            found = self.keep("soft_labels", "mean p", "soft", interval({0: constant}))
            rows.append(["the training rows' mean p", shown(found), "-", "-"])
        notes = ("Held-out log loss of the judge's probability, in nats. rEXPO predicts sigma of the difference of means "
                 "per token, DPO sigma(beta h).")
        return table("Soft labels", ["setting", "with p", "rounded", "difference"], rows, notes)

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
