//! The outcomes of a sweep as tables: a row per run, and the mean over the seeds of a setting.

use super::Outcome;
use crate::report::{Cell, Replicates, Table};
use crate::run_dir::{ACCURACY, SAMPLED_KL, SummaryRecord};

/// A figure that is compared.
#[derive(Clone, Copy)]
pub(super) struct Compared {
    /// The name of its column.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Where a summary has it.
    of: fn(&SummaryRecord) -> Option<f64>,
}

const fn compared(
    name: &'static str,
    unit: &'static str,
    of: fn(&SummaryRecord) -> Option<f64>,
) -> Compared {
    Compared { name, unit, of }
}

impl Compared {
    /// That of an outcome, if its run has it.
    pub(super) fn value(&self, outcome: &Outcome) -> Option<f64> {
        (self.of)(outcome.summary.as_ref()?)
    }
}

pub(super) const EVAL_ACCURACY: Compared = compared("accuracy", "0.5: chance", |of| {
    of.evaluated(&format!("eval_{ACCURACY}"))
});
pub(super) const CHOSEN: Compared = compared("log-ratio chosen", "nats", |of| {
    of.evaluated("eval_log_ratios/chosen")
});
const REJECTED: Compared = compared("log-ratio rejected", "nats", |of| {
    of.evaluated("eval_log_ratios/rejected")
});
pub(super) const EVAL_KL: Compared = compared("KL", "nats", |of| of.evaluated("eval_kl"));

pub(super) const EVAL_SAMPLED_KL: Compared = compared("sampled KL", "nats", |of| {
    of.evaluated(&format!("eval_{SAMPLED_KL}"))
});

/// The figures of the last evaluation.
const FIGURES: [Compared; 7] = [
    compared("eval loss", "own unit", |of| of.evaluated("eval_loss")),
    EVAL_ACCURACY,
    compared("margin", "own unit", |of| {
        of.evaluated("eval_rewards/margins")
    }),
    compared("log-ratio margin", "nats", |of| {
        Some((CHOSEN.of)(of)? - (REJECTED.of)(of)?)
    }),
    CHOSEN,
    REJECTED,
    EVAL_SAMPLED_KL,
];

pub(super) const SCORE: Compared =
    compared("score", "points", |of| of.story_after(|after| after.score));
pub(super) const STORY_KL: Compared =
    compared("KL", "nats", |of| of.story_after(|after| Some(after.kl)));

/// The figures of the stories drawn after training.
const STORY: [Compared; 6] = [
    SCORE,
    STORY_KL,
    compared("entropy", "nats", |of| {
        of.story_after(|after| Some(after.entropy))
    }),
    compared("distinct-1", "share", |of| {
        of.story_after(|after| Some(after.distinct_1))
    }),
    compared("distinct-2", "share", |of| {
        of.story_after(|after| Some(after.distinct_2))
    }),
    compared("in the grammar", "share", |of| {
        of.story_after(|after| Some(after.in_grammar))
    }),
];

/// The figures that a run has.
fn known(outcomes: &[Outcome]) -> Vec<Compared> {
    let all = STORY.into_iter().chain(FIGURES);
    all.filter(|compared| {
        outcomes
            .iter()
            .any(|outcome| compared.value(outcome).is_some())
    })
    .collect()
}

/// The outcomes as a table, a row per run; figures that no run has are left out.
pub fn comparison(outcomes: &[Outcome]) -> Table {
    let known = known(outcomes);
    let names = known.iter().map(|compared| compared.name);
    let units = known.iter().map(|compared| compared.unit);
    let mut table = Table::new("sweep", ["loss", "settings"].into_iter().chain(names))
        .with_units(["", ""].into_iter().chain(units));
    for outcome in outcomes {
        let figures = known
            .iter()
            .map(|compared| Cell::from(compared.value(outcome)));
        let words = [outcome.loss.as_str(), outcome.settings.as_str()].map(Cell::from);
        table.push(words.into_iter().chain(figures).collect());
    }
    table
}

/// Mean, standard deviation and 95% interval of each figure over the runs that differ in `run.seed`
/// alone, a row per setting and figure; `None` where no runs do.
pub fn over_seeds(outcomes: &[Outcome]) -> Option<Table> {
    let mut settings: Vec<(&str, &str)> = Vec::new();
    for outcome in outcomes {
        let setting = (outcome.loss.as_str(), outcome.setting.as_str());
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    let columns = [
        "loss", "settings", "figure", "seeds", "mean", "sd", "95% low", "95% high",
    ];
    let mut table = Table::new("sweep_seeds", columns);
    for (loss, setting) in settings {
        let own = || {
            let all = outcomes.iter();
            all.filter(move |outcome| {
                (outcome.loss.as_str(), outcome.setting.as_str()) == (loss, setting)
            })
        };
        if own().count() < 2 {
            continue;
        }
        for compared in known(outcomes) {
            let values = own().filter_map(|outcome| compared.value(outcome));
            let Some(over) = Replicates::of(values) else {
                continue;
            };
            table.push(vec![
                loss.into(),
                setting.into(),
                compared.name.into(),
                (over.count as f64).into(),
                over.mean.into(),
                over.deviation.into(),
                over.interval.map(|[low, _]| low).into(),
                over.interval.map(|[_, high]| high).into(),
            ]);
        }
    }
    (!table.rows().is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn outcome(loss: &str, setting: &str, seed: u64, accuracy: f64) -> Outcome {
        let summary = json!({
            "eval": {"first": {}, "last": {
                format!("eval_{ACCURACY}"): accuracy,
                "eval_log_ratios/chosen": -1.0,
                "eval_log_ratios/rejected": -3.5,
            }},
        });
        Outcome {
            loss: loss.into(),
            settings: format!("{setting} run.seed={seed}"),
            setting: setting.into(),
            summary: Some(serde_json::from_value(summary).unwrap()),
            failure: None,
        }
    }

    #[test]
    fn seeds_of_a_setting_have_mean_deviation_and_interval() {
        let outcomes = [
            outcome("dpo", "beta=0.1", 0, 0.6),
            outcome("dpo", "beta=0.5", 0, 0.9),
            outcome("dpo", "beta=0.1", 1, 0.7),
            outcome("dpo", "beta=0.1", 2, 0.8),
        ];
        let rows = over_seeds(&outcomes).unwrap().to_json();
        let row = |setting: &str, figure: &str| -> Value {
            let mut rows = rows.as_array().unwrap().iter();
            let is = |row: &&Value| row["settings"] == setting && row["figure"] == figure;
            rows.find(is).unwrap().clone()
        };
        let of = row("beta=0.1", "accuracy");
        let number = |key: &str| of[key].as_f64().unwrap();
        // t of two degrees of freedom is 4.302653.
        let half = 4.302_653 * 0.1 / 3f64.sqrt();
        assert_eq!(of["seeds"], 3.0);
        for (key, want) in [
            ("mean", 0.7),
            ("sd", 0.1),
            ("95% low", 0.7 - half),
            ("95% high", 0.7 + half),
        ] {
            assert!((number(key) - want).abs() < 1e-12, "{key} {}", number(key));
        }
        assert_eq!(row("beta=0.1", "log-ratio margin")["mean"], 2.5);
        let mut rows = rows.as_array().unwrap().iter();
        assert!(rows.all(|row| row["settings"] == "beta=0.1"));
        assert_eq!(over_seeds(&outcomes[..2]), None);
    }

    #[test]
    fn a_table_names_the_units_of_its_figures() {
        let table = comparison(&[outcome("dpo", "", 0, 0.6)]);
        let text = table.to_text();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().contains("log-ratio margin"));
        assert!(lines.next().unwrap().contains("nats"));
        assert!(!table.to_csv().contains("nats"));
    }
}
