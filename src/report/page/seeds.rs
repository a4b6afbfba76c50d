//! Runs that differ in their seed alone: the mean of each figure, and how far it may be off.

use std::collections::BTreeMap;

use super::folder::Recorded;
use super::html::{number, section, table, text};
use super::overview::{Column, known_columns};
use super::tables::flatten;
use crate::report::{Replicates, Table};

/// Keys in which runs of one setting differ.
const OF_A_SEED: [&str; 2] = ["run.seed", "run.output_dir"];

/// Runs of one setting.
struct Setting<'a> {
    /// What it is called: the name of its first run, without the seed.
    name: String,
    config: Vec<(String, String)>,
    /// By seed: a seed that was run twice counts once.
    runs: BTreeMap<i64, &'a Recorded>,
}

/// Settings of which several seeds are finished, in the order of the runs.
fn settings(runs: &[Recorded]) -> Vec<Setting<'_>> {
    let mut all: Vec<Setting> = Vec::new();
    for run in runs.iter().filter(|run| run.is_finished()) {
        let seed = run.setting("run", "seed").and_then(toml::Value::as_integer);
        let Some(seed) = seed else { continue };
        let mut config = flatten(&run.settings);
        config.retain(|(key, _)| !OF_A_SEED.contains(&key.as_str()));
        match all.iter_mut().find(|setting| setting.config == config) {
            Some(setting) => drop(setting.runs.insert(seed, run)),
            None => all.push(Setting {
                name: without_seed(&run.name),
                config,
                runs: BTreeMap::from([(seed, run)]),
            }),
        }
    }
    all.retain(|setting| setting.runs.len() > 1);
    all
}

/// `dpo-beta=0.1-run.seed=2` is `dpo-beta=0.1`.
fn without_seed(name: &str) -> String {
    let parts = name
        .split('-')
        .filter(|part| !part.starts_with("run.seed="));
    parts.collect::<Vec<_>>().join("-")
}

/// Mean, standard deviation and 95% interval of the last figures of runs that differ in their seed alone,
/// a row per setting and figure; `None` where no runs do.
pub fn over_seeds(runs: &[Recorded]) -> Option<Table> {
    let columns = [
        "setting", "figure", "seeds", "mean", "sd", "95% low", "95% high",
    ];
    let mut table = Table::new("seeds", columns);
    let settings = settings(runs);
    for setting in &settings {
        for (name, of) in known_columns(runs) {
            let Some(over) = Replicates::of(setting.runs.values().filter_map(|run| of(run))) else {
                continue;
            };
            table.push(vec![
                setting.name.as_str().into(),
                (*name).into(),
                (over.count as f64).into(),
                over.mean.into(),
                over.deviation.into(),
                over.interval.map(|[low, _]| low).into(),
                over.interval.map(|[_, high]| high).into(),
            ]);
        }
    }
    (!settings.is_empty()).then_some(table)
}

/// The section of the page; empty where no runs differ in their seed alone.
pub fn section_of(runs: &[Recorded]) -> String {
    let settings = settings(runs);
    if settings.is_empty() {
        return String::new();
    }
    let columns: Vec<&Column> = known_columns(runs);
    let mut heads = vec!["setting", "seeds"];
    heads.extend(columns.iter().map(|(head, _)| *head));
    let cell = |setting: &Setting, of: &dyn Fn(&Recorded) -> Option<f64>| {
        let Some(over) = Replicates::of(setting.runs.values().filter_map(|run| of(run))) else {
            return "–".to_owned();
        };
        let mean = number(over.mean);
        match (over.deviation, over.interval) {
            (Some(sd), Some([low, high])) => format!(
                "{mean} <small>sd {}<br/>[{}, {}]</small>",
                number(sd),
                number(low),
                number(high)
            ),
            _ => mean,
        }
    };
    let row = |setting: &Setting| {
        let seeds: Vec<String> = setting.runs.keys().map(i64::to_string).collect();
        let mut row = vec![text(&setting.name), seeds.join(", ")];
        row.extend(columns.iter().map(|(_, of)| cell(setting, of)));
        row
    };
    let rows: Vec<Vec<String>> = settings.iter().map(row).collect();
    let lead = "<p class=\"lead\">Runs that differ in <code>run.seed</code> alone: the mean of their last \
                figures, the standard deviation, and the 95% interval of the mean by Student's t.</p>\n";
    section(
        "seeds",
        "Over seeds",
        &format!("{lead}{}", table(&heads, &rows)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: i64, accuracy: f64) -> Recorded {
        let record = serde_json::json!({"step": 3, "eval_rewards/accuracies_ties_half": accuracy});
        Recorded {
            name: format!("dpo-run.seed={seed}"),
            records: vec![record.as_object().unwrap().clone()],
            settings: toml::from_str(&format!(
                "[run]\nseed = {seed}\noutput_dir = \"runs/{seed}\"\n[loss.dpo]\nbeta = 0.1\n"
            ))
            .unwrap(),
            summary: serde_json::from_str("{}").ok(),
            ..Recorded::default()
        }
    }

    /// t of two degrees of freedom is 4.302653; the deviation of 0.6, 0.7, 0.8 is 0.1.
    #[test]
    fn runs_that_differ_in_their_seed_are_one_setting() {
        let at_work = Recorded {
            summary: None,
            ..run(3, 0.1)
        };
        // A seed that was run twice counts once, and a run that is not finished not at all.
        let runs = [run(0, 0.6), run(1, 0.7), run(2, 0.8), run(2, 0.8), at_work];
        let row = over_seeds(&runs).unwrap().to_json()[0].clone();
        assert_eq!(
            (&row["setting"], &row["seeds"]),
            (&"dpo".into(), &3.0.into())
        );
        let low = row["95% low"].as_f64().unwrap();
        assert!((low - (0.7 - 4.302_653 * 0.1 / 3f64.sqrt())).abs() < 1e-9);
        let html = section_of(&runs);
        assert!(
            html.contains("0, 1, 2") && html.contains("0.7</data>"),
            "{html}"
        );
        assert_eq!(
            (over_seeds(&runs[..1]), section_of(&runs[..1])),
            (None, String::new())
        );
    }
}
