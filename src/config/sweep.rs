//! Many runs as one file: a base and what varies.
//!
//! *Why*: a comparison is fair where everything else is equal. So each run of a sweep is a whole
//! config, made from one base, and can be run and read by itself.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::source::Override;
use super::{Config, Source};
use crate::error::{Error, Place, Result};
use crate::loss::Loss;

/// Runs that differ in what a sweep varies.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepConfig {
    /// Where the runs' folders and the comparison go.
    pub output_dir: PathBuf,
    /// In the order of the file; of each entry every combination of its values.
    pub runs: Vec<PlannedRun>,
    /// Whether runs that are there are replaced: `run.overwrite`.
    pub overwrite: bool,
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRun {
    /// The loss.
    pub loss: String,
    /// What was set, e.g. `beta=0.1`, without the loss; empty where nothing was.
    pub settings: String,
    /// The whole config; its folder lies in the sweep's.
    pub config: Config,
    /// Where each value of it was set, for errors that come up when it runs.
    pub source: Source,
}

impl SweepConfig {
    /// Reads a sweep: entries `[[sweep]]` with `loss`, a name or a list of names, and keys with a
    /// value or a list of values: a knob of the loss (`beta = [0.1, 0.5]`) or any key of a run
    /// (`optimizer.learning_rate = [1e-4, 3e-4]`). The sections of the file come on top of those of
    /// the config that `base` names, if it names one; overrides on top of both.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::of(Source::open(path, &[])?, overrides)
    }

    #[cfg(test)]
    fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        Self::of(Source::parse(text, &[])?, overrides)
    }

    fn of(sweep: Source, overrides: &[String]) -> Result<Self> {
        let mut base = base(&sweep)?;
        let entries = entries(sweep.table());
        let entries = sweep.check(entries)?;
        if sweep.table().contains_key("loss") {
            let error = Error::input("a sweep has no [loss] of its own").hint(KNOBS);
            return sweep.check(Err(error.at_key("loss")));
        }
        let mut own = sweep.clone();
        own.remove("base");
        own.remove("sweep");
        base.overlay(own);
        if !base.table().contains_key("model") {
            return base
                .check(Err(Error::input("no [model]")
                    .hint("name the config that the runs start from: `base`")));
        }
        readable(&base)?;
        for assignment in overrides {
            let set = Override::parse(assignment)?;
            if set.is_of_loss() {
                let set = Place::Parameter("set", Some(assignment.clone()));
                return Err(Error::input("sets the loss of every run")
                    .hint(KNOBS)
                    .within(set));
            }
            base.assign(vec![set])?;
            readable(&base)?;
        }
        let mut runs: Vec<PlannedRun> = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let number = number.to_string();
            let place = |error: Error| error.at_key(&number).at_key("sweep");
            let planned = combinations(entry).map_err(place);
            let planned = sweep.check(planned)?;
            if runs.len() + planned.len() > MOST_RUNS {
                let error = Error::input(format!("more than {MOST_RUNS} runs"));
                return sweep.check(Err(place(error.hint("list fewer values"))));
            }
            for (loss, settings) in planned {
                let run = plan(&base, &sweep, &number, &loss, &settings)?;
                let folder = &run.config.run.output_dir;
                if runs
                    .iter()
                    .any(|other| other.config.run.output_dir == *folder)
                {
                    let name = format!("{loss} {}", run.settings);
                    let error = Error::input(format!("{} is there twice", name.trim()))
                        .hint("every run of a sweep differs from the others");
                    return sweep.check(Err(place(error)));
                }
                runs.push(run);
            }
        }
        let of_run = |key: &str| base.table().get("run")?.get(key);
        let output_dir = of_run("output_dir").and_then(Value::as_str);
        Ok(Self {
            output_dir: output_dir.unwrap_or_default().into(),
            overwrite: of_run("overwrite").and_then(Value::as_bool) == Some(true),
            runs,
        })
    }
}

/// The most runs of a sweep.
const MOST_RUNS: usize = 10_000;

/// The config that a sweep starts from.
fn base(sweep: &Source) -> Result<Source> {
    let mut base = match sweep.table().get("base") {
        None => Source::default(),
        Some(Value::String(path)) => Source::open(Path::new(path), &[])?,
        Some(_) => {
            let error = Error::input("base is not a path")
                .hint("it names the config that the runs start from");
            return sweep.check(Err(error.at_key("base")));
        }
    };
    base.remove("loss");
    Ok(base)
}

/// Where the knobs of a loss stand.
const KNOBS: &str = "the losses and their knobs stand in [[sweep]]";

/// Whether a base has sections and keys that a run has, before any entry is blamed for it.
fn readable(base: &Source) -> Result<()> {
    let mut run = base.clone();
    let origin = run.origin(&["loss"]);
    run.set_loss("dpo", origin)?;
    run.check(run.read_run::<Config>()).map(drop)
}

fn entries(table: &Table) -> Result<Vec<&Table>> {
    let none = || {
        Error::input("no [[sweep]]")
            .hint("add at least one, e.g. with loss = \"dpo\" and beta = [0.1, 0.5]")
    };
    match table.get("sweep") {
        Some(Value::Array(entries)) if !entries.is_empty() => {
            let tables = entries
                .iter()
                .map(|entry| entry.as_table().ok_or_else(none));
            tables.collect()
        }
        Some(Value::Table(_)) => Err(Error::input("[sweep] is one table, not a list of entries")
            .hint("write it with two brackets: [[sweep]]")
            .at_key("sweep")),
        _ => Err(none()),
    }
}

/// A setting: the key as it was written, and its value.
type Setting = (String, Value);

/// Every loss of an entry with every combination of its values.
fn combinations(entry: &Table) -> Result<Vec<(String, Vec<Setting>)>> {
    let names = match entry.get("loss") {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) if names.iter().all(Value::is_str) => names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => return Err(Error::input("no `loss`").hint("a name or a list of names")),
    };
    let mut axes: Vec<(String, Vec<Value>)> = Vec::new();
    flatten("", entry, &mut axes);
    axes.retain(|(key, _)| key != "loss");
    if let Some((key, _)) = axes.iter().find(|(_, values)| values.is_empty()) {
        return Err(Error::input(format!("`{key}` has no value")).at_key(key));
    }
    let mut all: Vec<(String, Vec<Setting>)> =
        names.into_iter().map(|name| (name, Vec::new())).collect();
    for (key, values) in &axes {
        let with = |(loss, set): (String, Vec<Setting>)| {
            values.iter().map(move |value| {
                let mut set = set.clone();
                set.push((key.clone(), value.clone()));
                (loss.clone(), set)
            })
        };
        // One more than is allowed tells.
        all = all.into_iter().flat_map(with).take(MOST_RUNS + 1).collect();
    }
    Ok(all)
}

fn flatten(prefix: &str, table: &Table, axes: &mut Vec<(String, Vec<Value>)>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(section) => flatten(&format!("{key}."), section, axes),
            Value::Array(values) => axes.push((key, values.clone())),
            value => axes.push((key, vec![value.clone()])),
        }
    }
}

/// The run of entry `number` of a sweep with this loss and these settings over `base`.
fn plan(
    base: &Source,
    sweep: &Source,
    number: &str,
    loss: &str,
    settings: &[Setting],
) -> Result<PlannedRun> {
    let origin = |key: &str| {
        let path: Vec<&str> = ["sweep", number]
            .into_iter()
            .chain(key.split('.'))
            .collect();
        sweep.origin(&path)
    };
    let named = Loss::default_of(loss);
    let named = named.map_err(|error| error.at_key(&format!("sweep.{number}.loss")));
    let named = sweep.check(named)?;
    let loss = named.name();
    let mut run = base.clone();
    run.set_loss(loss, origin("loss"))?;
    for (key, value) in settings {
        if key.starts_with("loss.") {
            let error = Error::input(format!("`{key}`"))
                .hint("a knob is named by itself, beside its loss: beta = [0.1, 0.5]");
            return sweep.check(Err(error.at_key(&format!("sweep.{number}.{key}"))));
        }
        let unknown = named.unknown_knob(key);
        if let (Some(error), false) = (unknown, key.contains('.') || key == "weight") {
            return sweep.check(Err(error.at_key(&format!("sweep.{number}.{key}"))));
        }
        let path: Vec<&str> = match key.contains('.') {
            true => key.split('.').collect(),
            false => vec!["loss", loss, key],
        };
        run.set(&path, value.clone(), origin(key))?;
    }
    let text = |(key, value): &Setting| match value {
        Value::String(word) => format!("{key}={word}"),
        value => format!("{key}={value}"),
    };
    let settings = settings.iter().map(text).collect::<Vec<_>>().join(" ");
    let mut config = Config::of(&run)?;
    let name = format!("{loss} {settings}");
    let name = name.trim().replace([' ', '/', '\\'], "-");
    config.run.output_dir = config.run.output_dir.join(name);
    // That is the sweep's: what lies in a folder unfinished is resumed, or all is replaced.
    config.run.overwrite = false;
    Ok(PlannedRun {
        loss: loss.to_owned(),
        settings,
        config,
        source: run,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "[model]\nmodel_name_or_path = \"m\"\n[data]\nformat = \"pairs\"\n\
                        train = \"t.jsonl\"\n[run]\noutput_dir = \"runs/sweep\"\n";

    fn sweep(entries: &str) -> Result<SweepConfig> {
        SweepConfig::parse(&format!("{BASE}{entries}"), &["run.seed=7".into()])
    }

    #[test]
    fn an_entry_is_every_combination_of_its_values() {
        let sweep = sweep(
            "[[sweep]]\nloss = [\"dpo\", \"ipo\"]\nbeta = [0.1, 0.5]\n\
             optimizer.learning_rate = [1e-3, 1e-4]\n[[sweep]]\nloss = \"simpo\"\n",
        )
        .unwrap();
        assert_eq!(sweep.runs.len(), 9);
        assert_eq!(sweep.output_dir, Path::new("runs/sweep"));
        let run = &sweep.runs[5];
        assert_eq!(
            (run.loss.as_str(), run.settings.as_str()),
            ("ipo", "beta=0.1 optimizer.learning_rate=0.0001")
        );
        assert_eq!(run.config.optimizer.learning_rate, 1e-4);
        assert_eq!(run.config.loss, Loss::default_of("ipo").unwrap().into());
        assert_eq!(run.config.run.seed, 7);
        let folder = "runs/sweep/ipo-beta=0.1-optimizer.learning_rate=0.0001";
        assert_eq!(run.config.run.output_dir, Path::new(folder));
        assert_eq!(
            sweep.runs[8].config.run.output_dir,
            Path::new("runs/sweep/simpo")
        );
    }

    #[test]
    fn what_makes_no_sweep_is_refused() {
        // The base has seven lines.
        for (entries, words) in [
            ("", ["[[sweep]]", "loss"]),
            ("[[sweep]]\nbeta = 0.1\n", ["line 8: ", "`loss`"]),
            (
                "[sweep]\nloss = \"dpo\"\n",
                ["line 8: ", "two brackets: [[sweep]]"],
            ),
            ("[[sweep]]\nloss = \"dop\"\n", ["line 9: ", "`dpo`?"]),
            (
                "[[sweep]]\nloss = \"dpo\"\ngamma = [1]\n",
                ["line 10: ", "the loss dpo has no knob `gamma`"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\nbeta = [1, -1]\n",
                ["line 10: ", "beta must be"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\nbeta = []\n",
                ["line 10: ", "`beta` has no value"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\n[[sweep]]\nloss = [\"dpo\"]\n",
                ["line 10: ", "dpo is there twice"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\nrun.sed = 1\n",
                ["line 10: ", "`seed`?"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\nrun.save_total_limit = 2\n",
                ["line 10: ", "without save_steps"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\n\"loss.sft.weight\" = 1\n",
                ["line 10: ", "loss.sft.weight"],
            ),
            (
                "[loss.dpo]\n[[sweep]]\nloss = \"dpo\"\n",
                ["line 8: a sweep has no [loss]", "[[sweep]]"],
            ),
            (
                "[batch]\nsize = 3\n[[sweep]]\nloss = \"dpo\"\n",
                ["line 9: ", "batch_size"],
            ),
            (
                "[batch]\nbatch_size = 0\n[[sweep]]\nloss = \"dpo\"\n",
                ["line 9: ", "batch_size must be >= 1"],
            ),
        ] {
            let error = sweep(entries).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn an_override_is_every_runs_and_no_knob() {
        let text = format!("{BASE}[[sweep]]\nloss = \"dpo\"\n");
        let with = |set: &str| SweepConfig::parse(&text, &[set.to_owned()]);
        assert_eq!(
            with("batch.batch_size=3").unwrap().runs[0]
                .config
                .batch
                .batch_size,
            3
        );
        for set in ["loss.dpo.beta=0.3", "loss=ipo", "run.sed=1"] {
            let error = with(set).unwrap_err().to_string();
            assert!(error.starts_with(&format!("set {set}: ")), "{error}");
        }
    }
}
