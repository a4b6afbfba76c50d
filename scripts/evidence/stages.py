"""Tables of the stages beside held-out pairs and win rates: training, diversity, preservation, soft labels."""

import math
from collections import defaultdict

from chart import Point, scatter
from markdown import over_seeds, shown, table
from measured import BASELINE, COMPARED, Measured, by_prompt, lines, log_ratio, read, share_cut
from rows import score
from stats import Interval, best_of, difference, interval, mean


class Stages(Measured):
    """Adds these tables."""

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
        series: dict = defaultdict(lambda: defaultdict(list))
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
            point = Point(name, figures["good: KL(pi || r)"][1], figures["bad: gain in score"][1])
            series[labels][name.split("-")[0]].append(point)
        for labels, of_labels in series.items():
            for points in of_labels.values():
                points.sort(key=lambda point: float(point.name.partition("=")[2]))
            axes = ("KL(pi || r) on good prompts, nats", "gain in score on bad prompts")
            self.charts[f"preservation-{labels}"] = scatter(f"Labels: {labels}", axes, of_labels)
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
