"""What of the evidence needs no program: `python3 scripts/evidence/test_evidence.py`."""

import contextlib
import io
import json
import math
import random
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

import chart
import markdown
import measured
import published
import rows
import stats
import tables
from stats import Interval


def put(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


class Statistics(unittest.TestCase):
    def test_student_has_the_quantiles_of_a_table(self):
        for freedom, quantile in ((1, 12.7062), (2, 4.3027), (10, 2.2281), (1e6, 1.96)):
            self.assertAlmostEqual(stats.student(freedom), quantile, places=3)

    def test_an_interval_of_one_seed_is_of_the_prompts(self):
        values = {prompt: float(prompt % 2) for prompt in range(400)}
        found = stats.interval({"seed0": values})
        self.assertEqual((found.value, found.prompts, found.seeds), (0.5, 400, 1))
        half = 1.96 * math.sqrt(0.25 / 400)
        self.assertAlmostEqual(found.low, 0.5 - half, delta=0.01)
        self.assertAlmostEqual(found.high, 0.5 + half, delta=0.01)

    def test_an_interval_of_seeds_that_differ_is_wide(self):
        values = {f"seed{seed}": {prompt: float(seed) for prompt in range(50)} for seed in range(3)}
        found = stats.interval(values)
        self.assertAlmostEqual(found.value, 1)
        self.assertAlmostEqual(found.high - 1, 4.3027 / math.sqrt(3), places=3)

    def test_intervals_hold_the_truth_as_often_as_they_say(self):
        draw, held = random.Random(1), 0
        for _ in range(200):
            prompts = [draw.gauss(0, 1) for _ in range(30)]
            seeds = [draw.gauss(0, 0.2) for _ in range(3)]
            by_seed = {
                seed: {i: prompt + effect + draw.gauss(0, 0.3) for i, prompt in enumerate(prompts)}
                for seed, effect in enumerate(seeds)
            }
            held += not stats.interval(by_seed).excludes(0)
        self.assertGreater(held, 180)

    def test_a_difference_is_paired(self):
        left = {"seed0": {"a": 1.0, "b": 11.0, "c": 5.0}}
        right = {"seed0": {"a": 0.0, "b": 10.0}, "seed1": {"a": 9.0}}
        found = stats.difference(left, right)
        self.assertEqual((found.value, found.low, found.high, found.prompts), (1, 1, 1, 2))
        self.assertIsNone(stats.difference(left, {"seed1": {"a": 1.0}}))

    def test_prompts_that_a_seed_lacks_are_left_out(self):
        found = stats.interval({0: {"a": 1.0, "b": 3.0}, 1: {"a": 1.0}})
        self.assertEqual((found.value, found.prompts), (1, 1))
        self.assertIsNone(stats.interval({0: {}}))

    def test_kappa_is_agreement_beyond_chance(self):
        self.assertEqual(stats.agreement([1, 1, 0, 0], [1, 1, 0, 0]), (1, 1))
        self.assertEqual(stats.agreement([1, 1, 0, 0], [1, 0, 1, 0]), (0.5, 0))
        self.assertEqual(stats.agreement([1, 1], [1, 1]), (1, None))
        same, kappa = stats.agreements([[(1, 1)], [(0, 0)], [(1, 0)]] * 30)
        self.assertAlmostEqual(same.value, 2 / 3)
        self.assertTrue(same.low < same.value < same.high and kappa.low < kappa.value < kappa.high)

    def test_best_of_n_is_the_mean_over_all_subsets(self):
        scores = [3.0, 1.0, 2.0, 10.0]
        self.assertEqual(stats.best_of(scores, 1), 4)
        self.assertEqual(stats.best_of(scores, 4), 10)
        self.assertAlmostEqual(stats.best_of(scores, 2), (10 * 3 + 3 * 2 + 2) / 6)


class Rows(unittest.TestCase):
    def test_the_cue_ends_the_last_turn(self):
        prompt = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
        cued = rows.with_cue(prompt)
        self.assertEqual(cued, "\n\nHuman: a\n\nAssistant: b\n\nHuman: c" + rows.CUE + "\n\nAssistant:")
        self.assertTrue(rows.has_cue(cued) and not rows.has_cue(prompt))
        self.assertTrue(rows.has_cue(rows.with_cue("plain")))

    def test_every_second_prompt_has_it_and_no_prompt_is_there_twice(self):
        drawn = [{"prompt": prompt} for prompt in ("a", "a", "b", "long" * 9, "c")]
        made = [row["prompt"] for row in rows.prompts(drawn, 9)]
        self.assertEqual(made, ["a", "b" + rows.CUE, "c"])

    def test_a_limit_counts_the_prompts_of_the_kind_and_may_exceed_them(self):
        drawn = [{"prompt": prompt} for prompt in ("a", "b", "c", "d", "e")]
        cases = (("good", 2, ["a", "c"]), ("good", 9, ["a", "c", "e"]), ("bad", 1, ["b" + rows.CUE]))
        for kind, limit, expected in cases:
            with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
                put(Path(name) / "drawn.jsonl", drawn)
                made = Path(name) / "made.jsonl"
                rows.main(["prompts", f"{name}/drawn.jsonl", str(made), "--only", kind, "--limit", str(limit)])
                self.assertEqual([row["prompt"] for row in rows.lines(made)], expected)

    def test_scores_are_of_words_in_lower_case(self):
        self.assertEqual(rows.score("Kind, KIND unkind don't_no", {"kind": 1.0, "don't": 5.0, "no": -2.0}), 5)

    def test_labels_are_drawn_at_the_odds(self):
        samples = [(" y", -2.0), (" kind", -2.0)]
        weights, counts = {"kind": 1.0}, {False: 0, True: 0}
        for number in range(2000):
            prompt = f"{number}" if number % 2 else rows.with_cue(f"{number}")
            drawn = [
                {"prompt": prompt, "response": text, "log_prob": log_prob, "finish_reason": "stop"}
                for text, log_prob in samples
            ]
            (row,) = rows.labelled(drawn, weights, 2.0, 0)
            counts[rows.has_cue(prompt)] += row["chosen"] == " kind"
        self.assertAlmostEqual(counts[False] / 1000, 0.5, delta=0.05)
        self.assertAlmostEqual(counts[True] / 1000, rows.sigma(2.0), delta=0.04)

    def test_the_odds_of_the_ratio_know_nothing_of_the_reference(self):
        first = {"response": " kind", "log_prob": -1.0}
        second = {"response": " y", "log_prob": -4.0}
        for of, tilt, z in (("policy", 0.0, 3), ("policy", 2.0, 5), ("ratio", 0.0, 0), ("ratio", 2.0, 2)):
            self.assertAlmostEqual(rows.odds(first, second, {"kind": 1.0}, tilt, of), rows.sigma(z))

    def test_both_labellings_have_the_same_pairs(self):
        drawn = [
            {"prompt": f"{i}", "response": text, "log_prob": log_prob, "finish_reason": "stop"}
            for i in range(50)
            for text, log_prob in ((" y", -1.0), (" n", -6.0))
        ]
        made = [rows.labelled(drawn, {}, 2.0, 0, of) for of in ("policy", "ratio")]
        self.assertEqual(*([{row["prompt"], row["chosen"], row["rejected"]} for row in found] for found in made))
        likely, even = (sum(row["chosen"] == " y" for row in found) for found in made)
        self.assertTrue(likely > 45 and 10 < even < 40)

    def test_cut_and_equal_samples_make_no_row(self):
        row = {"prompt": "a", "response": " b", "log_prob": -1.0, "finish_reason": "stop"}
        self.assertEqual(rows.labelled([row, row, row | {"response": " c", "finish_reason": "length"}], {}, 1.0, 0), [])

    def test_soft_rows_share_no_instruction_with_held_out_ones(self):
        files = [
            [{"instruction": f"{i}", "output_1": "a", "output_2": "b", "preference": p, "other": 1} for i in range(50)]
            for p in (1.2, 1.9)
        ] + [[{"instruction": "0", "output_1": "a", "output_2": "b", "preference": p} for p in (None, 1.5)]]
        soft, hard, held_out = rows.soft(files, 40, 20, 0)
        self.assertEqual((len(soft), len(hard), len(held_out)), (40, 40, 20))
        learned = {row["instruction"] for row in soft}
        self.assertFalse(learned & {row["instruction"] for row in held_out})
        self.assertEqual({(s["preference"], h["preference"]) for s, h in zip(soft, hard)}, {(1.2, 1.0), (1.9, 2.0)})


class Tables(unittest.TestCase):
    def test_tables_have_figures_and_no_text(self):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name)
            for setting, h in (("dpo-beta=0.1", 1.0), ("rexpo-lambda=0.2", -1.0)):
                for seed in (0, 1):
                    run = f"main/seed{seed}/{setting}"
                    put(out / run / "summary.json", [{}])
                    put(out / run / "metrics.jsonl", [{"step": 0, "eval_loss": 1.0, "eval_entropy": 2.0}])
                    put(out / "pairs" / f"{run}.jsonl", [{
                        "row": row, "h": h, "d": 30.0, "rho": {"chosen": -1.0, "rejected": -1.0 - h},
                        "log_probs": {"chosen": -10.0, "rejected": -40.0}, "tokens": {"chosen": 2, "rejected": 8},
                        "losses": {setting.split("-")[0]: 0.5},
                    } for row in range(9)])
                    put(out / "draws/kl" / f"{run}.jsonl", [{
                        "prompt": f"secret {i}", "response": "secret", "log_prob": -1.0, "reference_log_prob": -3.0,
                        "finish_reason": "length" if i < 3 else "stop",
                    } for i in range(9)])
                    put(out / "draws/judged" / f"{run}.jsonl", [
                        {"prompt": f"secret {i}", "finish_reason": "length" if i < 6 else "stop"} for i in range(9)
                    ])
                    for judge in ("judge0", "length"):
                        for against in ("chosen", "sft"):
                            put(out / "verdicts" / judge / against / f"{run}.jsonl", [
                                {"prompt": f"secret {i}", "outcome": "win" if h > 0 or i < 3 else "loss"}
                                for i in range(9)
                            ])
            put(out / "results/lint/judge0/policies", [{"eval": {"rows": 9, "findings": [
                {"check": "leaked_prompt", "rows": 2, "first": ["secret"]}, {"check": "unusable", "rows": 1},
            ]}}])
            put(out / "main/seed1/ipo-beta=0.1/config.toml", [])
            put(out / "main/seed1/ipo-beta=0.1/non_finite.jsonl", [{}])
            with contextlib.redirect_stdout(io.StringIO()) as shown:
                tables.Evidence(out, {}).write(out / "tables")
            text = shown.getvalue() + "".join(path.read_text() for path in (out / "tables").iterdir())
            wins = [line.split(" | ")[1] for line in (out / "tables/win_rates.md").read_text().splitlines()[6:-1]]
            figures = json.loads((out / "tables/figures.json").read_text())
        self.assertNotIn("secret", text)
        leaks = {"rows": 9, "leaked_row": 0, "leaked_prompt": 2}
        self.assertEqual(figures["leaks"], {"judge0/policies": leaks})
        self.assertEqual(figures["diverged"], ["main/seed1/ipo-beta=0.1"])
        self.assertEqual(figures["held_out"]["main/dpo-beta=0.1"]["KL(pi || r), first 64 tokens"]["value"], 2)
        self.assertAlmostEqual(figures["held_out"]["main/dpo-beta=0.1"]["samples cut there"]["value"], 1 / 3)
        self.assertEqual(figures["held_out"]["main/rexpo-lambda=0.2"]["saturated"]["value"], 1)
        self.assertEqual(figures["held_out"]["main/rexpo-lambda=0.2"]["own loss"]["value"], 0.5)
        self.assertEqual(figures["difference"]["rexpo-lambda=0.2"]["reward accuracy"]["value"], -1)
        self.assertAlmostEqual(figures["win_rate/sft"]["rexpo-lambda=0.2"]["judge0"]["value"], 1 / 3)
        self.assertEqual(wins, ["sft", "sft", "chosen", "chosen"])
        self.assertAlmostEqual(figures["answers_cut"]["rexpo-lambda=0.2"]["cut"]["value"], 2 / 3)
        self.assertEqual(figures["agreement"]["sft: judge0, length"]["same"]["value"], 1)

    def test_preservation_shows_both_labellings_and_whose_optimum_the_reference_is(self):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name)
            samples = [{
                "prompt": f"secret {i}", "response": "kind", "log_prob": -1.0, "reference_log_prob": -3.0,
                "finish_reason": "length" if i < 3 else "stop",
            } for i in range(9)]
            for kind in ("good", "bad"):
                put(out / f"preserve/sft-{kind}.jsonl", samples)
            put(out / "preserve/scores/sft.jsonl", [{"row": i, "sampled": [{"log_prob": -1.0}]} for i in range(9)])
            settings = ("dpo-beta=0.1", "rexpo-lambda=0.2")
            for run in (f"{labels}/{setting}" for labels in ("policy", "ratio") for setting in settings):
                put(out / "preserve" / run / "summary.json", [{}])
                put(out / f"preserve/scores/{run}.jsonl", [
                    {"row": i, "sampled": [{"log_prob": -1.5}]} for i in range(9)
                ])
                for kind in ("good", "bad"):
                    put(out / f"draws/preserve/{kind}/{run}.jsonl", samples)
            evidence = tables.Evidence(out, {"kind": 1.0})
            made = evidence.preservation()
        optimal = [line.split(" | ")[:3] for line in made.splitlines() if "-beta" in line or "-lambda" in line]
        self.assertEqual(optimal, [
            ["| policy", "dpo-beta=0.1", "no"], ["| policy", "rexpo-lambda=0.2", "yes"],
            ["| ratio", "dpo-beta=0.1", "yes"], ["| ratio", "rexpo-lambda=0.2", "no"],
        ])
        figures = evidence.figures["preservation"]["ratio/dpo-beta=0.1"]
        self.assertEqual(figures["good: KL(pi || r)"]["value"], 2)
        self.assertEqual(figures["good: KL(r || pi)"]["value"], 0.5)
        self.assertAlmostEqual(figures["bad: cut"]["value"], 1 / 3)
        self.assertIn("33.3%", made.split("| labels")[0])
        self.assertNotIn("secret", made)
        self.assertEqual(set(evidence.charts), {"preservation-policy", "preservation-ratio"})
        for chart in evidence.charts.values():
            drawn = [mark.text for mark in ElementTree.fromstring(chart).iter() if mark.tag.endswith("}text")]
            self.assertLessEqual({"dpo", "rexpo", "0.1", "0.2"}, set(drawn))

    def test_a_chart_has_room_for_its_intervals(self):
        points = [chart.Point("a<b", Interval(-3, -4, 0, 5, 1), Interval(0, 0, 0, 5, 1)),
                  chart.Point("x-k=2", Interval(1e3, 9e2, 1.2e3, 5, 1), Interval(5, -50, 60, 5, 1))]
        root = ElementTree.fromstring(chart.scatter("t", ("x & y", "y"), {"x": points}))
        for mark in root.iter():
            for key in ("cx", "x1", "x2"):
                self.assertTrue(0 <= float(mark.get(key, 0)) <= chart.WIDTH, mark.attrib)
            for key in ("cy", "y1", "y2"):
                self.assertTrue(0 <= float(mark.get(key, 0)) <= chart.HEIGHT, mark.attrib)
        for low, high in ((0, 1), (-0.031, 0.0009), (-4, 1200), (0, 60)):
            self.assertTrue(3 <= len(chart.ticks(low, high)) <= 7, (low, high))

    def test_diversity_is_compared_prompt_by_prompt(self):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name)
            put(out / "diversity/t1.jsonl", [
                {"model": model, "prompt": f"secret {i}", "entropy_monte_carlo": i + more, "distinct_1": None}
                for model, more in (("sft", 0.5), (measured.BASELINE, 0.0)) for i in range(9)
            ])
            evidence = tables.Evidence(out, {})
            made = evidence.diversity()
        self.assertNotIn("secret", made)
        self.assertIn("| 1 | sft | 0.50 (0.50 to 0.50) | - |", made)

    def make(self, out: Path, seed: int, h: float, rate: float = 1e-4) -> None:
        """An OUT with one run, and a bit of each kind of file; texts and paths have the word secret."""
        run = f"main/seed{seed}/dpo-beta=0.1"
        put(out / run / "summary.json", [{"secret": 1}])
        put(out / run / "metrics.jsonl", [{
            "step": 0, "eval_loss": 1.0, "eval_entropy": 2.0, "eval_sampled_kl": 0.5, "eval_log_ratios/chosen": -1.0,
            "eval_log_ratios/rejected": -2.0, "eval_rewards/accuracies_ties_half": 0.5, "eval_saturated": 0.25,
        }, {"step": 1, "loss": 2.0}])
        for place in (run, "sft"):
            put(out / place / "run.json", [{"frozen": {
                "run.seed": seed, "optimizer.learning_rate": rate, "model.model_name_or_path": "hash",
            }, "secret": "secret"}])
        put(out / "pairs" / f"{run}.jsonl", [{
            "row": row, "h": h, "d": 30.0, "rho": {"chosen": -1.0, "rejected": -1.0 - h}, "secret": "secret",
            "log_probs": {"chosen": -10.0, "rejected": -40.0}, "tokens": {"chosen": 2, "rejected": 8},
            "losses": {"dpo": 0.5},
        } for row in range(5)])
        drawn = [{
            "prompt": f"secret {i}", "response": "secret kind", "log_prob": -1.0, "reference_log_prob": -1.0 - h,
            "finish_reason": "stop",
        } for i in range(5)]
        put(out / "draws/kl" / f"{run}.jsonl", drawn)
        put(out / "preserve/sft-bad.jsonl", drawn)
        put(out / "verdicts/length/sft" / f"{run}.jsonl", [
            {"prompt": f"secret {i}", "outcome": "win" if i else "tie", "calls": ["secret"]} for i in range(5)
        ])
        put(out / "preserve/scores/sft.jsonl", [{"row": 0, "sampled": [{"log_prob": -1.5, "secret": 1}]}])
        put(out / "results/lint/judge0/policies", [{"eval": {"rows": 9, "findings": [
            {"check": "leaked_prompt", "rows": 2, "first": ["secret"]},
        ]}}])
        put(out / "results/diversity/t1", [{"prompts": 4, "secret": "secret", "models": [
            {"name": "sft", "model": "secret", "tokens": {"value": 3.0, "low": 2.0, "high": 4.0}},
        ]}])
        head = "stage\tstep\tstarted\tseconds\toutcome\n"
        (out / "hours.tsv").write_text(f"{head}sft\tsft\t{seed}:00\t1800\tdone\n")
        words = out / "words.txt"
        words.write_text("kind 1\n")
        published.main([str(out), str(out / "numbers.jsonl"), "--lexicon", str(words)])

    def tables(self, out: Path, *others: Path) -> dict:
        """The figures of the program, with the numbers of other directories."""
        more = [part for other in others for part in ("--with", str(other / "numbers.jsonl"))]
        with contextlib.redirect_stdout(io.StringIO()):
            tables.main([str(out), "--lexicon", str(out / "words.txt"), *more])
        return json.loads((out / "tables/figures.json").read_text())

    def test_published_numbers_have_no_text_and_give_the_same_tables(self):
        with tempfile.TemporaryDirectory() as name:
            first, second, empty = (Path(name) / part for part in ("first", "second", "empty"))
            self.make(first, 0, 1.0)
            self.make(second, 1, 3.0)
            empty.mkdir()
            (empty / "words.txt").write_text("kind 1\n")
            # A line that a kill left unfinished.
            with open(second / "draws/kl/main/seed1/dpo-beta=0.1.jsonl", "a") as file:
                file.write('{"prompt": "secr')
            text = (first / "numbers.jsonl").read_text()
            one, again, both = self.tables(first), self.tables(empty, first), self.tables(second, first)
            drawn = [line for line in published.read(first / "numbers.jsonl") if line["path"] == "preserve/sft-bad.jsonl"]
            trained = (second / "tables/degradation.md").read_text()
        self.assertNotIn("secret", text)
        self.assertEqual(one, again)
        self.assertEqual(drawn[0]["columns"]["score"], [1.0] * 5)
        ratio = both["held_out"]["main/dpo-beta=0.1"]["KL(pi || r), first 64 tokens"]
        self.assertEqual((ratio["value"], ratio["seeds"]), (2.0, 2))
        self.assertEqual(both["hours"], {"sft": 1.0})
        self.assertIn("| 1.000 ± 0.000 | 2.000 ± 0.000 | 0.500 ± 0.000 | -1.000 ± 0.000 | -2.000", trained)

    def test_numbers_that_do_not_belong_together_are_refused(self):
        with tempfile.TemporaryDirectory() as name:
            first, same, other, foreign = (Path(name) / part for part in ("first", "same", "other", "foreign"))
            self.make(first, 0, 1.0)
            self.make(same, 0, 2.0)
            self.make(other, 1, 2.0, rate=3e-4)
            put(foreign / "numbers.jsonl", [{"path": "pairs/../../x.jsonl", "columns": {"row": [1]}}])
            for others, said in (
                ([same], "main/seed0/dpo-beta=0.1 is in"),
                ([other], "optimizer.learning_rate is not the same in"),
                ([foreign], "numbers.jsonl:1: is not a line of published.py"),
                ([Path(name) / "none"], "No such file"),
                ([other, other], "twice"),
            ):
                with contextlib.redirect_stderr(io.StringIO()) as shown, self.assertRaises(SystemExit) as end:
                    self.tables(first, *others)
                self.assertEqual(end.exception.code, 2)
                self.assertIn(said, shown.getvalue())

    def test_a_difference_of_one_seed_has_no_star(self):
        for seeds, starred in ((1, False), (2, True)):
            with tempfile.TemporaryDirectory() as name:
                out = Path(name)
                for setting, h in (("dpo-beta=0.1", 1.0), ("ipo-beta=0.1", -1.0)):
                    # A second run of the baseline alone pairs with nothing.
                    for seed in range(2 if setting == measured.BASELINE else seeds):
                        run = f"main/seed{seed}/{setting}"
                        put(out / run / "summary.json", [{}])
                        put(out / "pairs" / f"{run}.jsonl", [
                            {"row": i, "h": h, "rho": {"chosen": h}} for i in range(9)
                        ])
                made = tables.Evidence(out, {}).differences()
            self.assertIn(f"| ipo-beta=0.1 | {seeds} | -100.0% (-100.0 to -100.0){' *' if starred else ''} |", made)

    def test_the_seeds_of_a_row_are_those_of_its_figures(self):
        one, three = (stats.Interval(0.0, 0.0, 0.0, 5, seeds) for seeds in (1, 3))
        self.assertEqual(markdown.seeds_of([one, None, three]), "1 to 3")
        self.assertEqual(markdown.seeds_of([three, three]), "3")
        self.assertEqual(markdown.seeds_of([None]), "-")

    def test_the_interval_of_a_share_ends_at_0_and_1(self):
        wide = stats.Interval(0.9, -0.1, 1.2, 5, 2)
        self.assertEqual(markdown.shown(wide, "%", True), "90.0% (0.0 to 100.0)")
        self.assertEqual(markdown.shown(wide, "%"), "90.0% (-10.0 to 120.0)")

    def test_saturation_follows_the_knobs(self):
        row = {"d": 20.0, "log_probs": {"chosen": -2.0, "rejected": -22.0}, "tokens": {"chosen": 1, "rejected": 10}}
        self.assertEqual(measured.saturated("rexpo-lambda=0.2")(row), 1)
        self.assertEqual(measured.saturated("rexpo-lambda=0.2-margin=20.0")(row), 0)
        self.assertEqual(measured.saturated("rexpo-lambda=0.2-length_normalized=true")(row), 0)


if __name__ == "__main__":
    unittest.main()
