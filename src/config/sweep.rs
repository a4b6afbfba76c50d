//! Many runs as one file: a base and what varies.
//!
//! *Why*: a comparison is fair where everything else is equal. So each run of a sweep is a whole
//! config, made from one base, and can be run and read by itself.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, read};
use crate::error::{Error, Result};
use crate::io::untrusted;
use crate::loss::Loss;

/// Runs that differ in what a sweep varies.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepConfig {
    /// Where the runs' folders and the comparison go.
    pub output_dir: PathBuf,
    /// In the order of the file; of each entry every combination of its values.
    pub runs: Vec<PlannedRun>,
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
}

impl SweepConfig {
    /// Reads a sweep: entries `[[sweep]]` with `loss`, a name or a list of names, and keys with a
    /// value or a list of values: a knob of the loss (`beta = [0.1, 0.5]`) or any key of a run
    /// (`optimizer.learning_rate = [1e-4, 3e-4]`). The sections of the file come on top of those of
    /// the config that `base` names, if it names one; overrides on top of both.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = untrusted::text(path, untrusted::TOML)?;
        Self::parse(&text, overrides).map_err(|error| error.at(path.display()))
    }

    fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let mut table = read::table(text, &[])?;
        let entries = entries(&mut table)?;
        let mut base = match table.remove("base") {
            None => Table::new(),
            Some(Value::String(path)) => {
                let path = Path::new(&path);
                let text = untrusted::text(path, untrusted::TOML)?;
                read::table(&text, &[]).map_err(|error| error.at(path.display()))?
            }
            Some(_) => {
                return Err(Error::input("`base` is no path")
                    .hint("it names the config that the runs start from"));
            }
        };
        base.remove("loss");
        if table.contains_key("loss") {
            return Err(Error::input("a sweep has no [loss] of its own").hint(KNOBS));
        }
        merge(&mut base, table);
        if !base.contains_key("model") {
            return Err(
                Error::input("no [model]").hint("name the config that the runs start from: `base`")
            );
        }
        readable(&base)?;
        for assignment in overrides {
            if assignment.trim_start().starts_with("loss") {
                return Err(Error::input(format!("--set {assignment}")).hint(KNOBS));
            }
            read::assign(&mut base, assignment)?;
            readable(&base).map_err(|error| error.at(format!("--set {assignment}")))?;
        }
        let mut runs = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let place = |error: Error| error.at(format!("[[sweep]] {}", number + 1));
            for (loss, settings) in combinations(entry).map_err(place)? {
                runs.push(plan(&base, &loss, &settings).map_err(place)?);
            }
        }
        let folder = |run: &PlannedRun| run.config.run.output_dir.clone();
        for (at, run) in runs.iter().enumerate() {
            if runs[..at].iter().any(|other| folder(other) == folder(run)) {
                let name = format!("{} {}", run.loss, run.settings);
                return Err(Error::input(format!("{} is there twice", name.trim()))
                    .hint("every run of a sweep differs from the others"));
            }
        }
        let output_dir = base
            .get("run")
            .and_then(|run| run.get("output_dir")?.as_str());
        Ok(Self {
            output_dir: output_dir.unwrap_or_default().into(),
            runs,
        })
    }
}

/// Where the knobs of a loss stand.
const KNOBS: &str = "the losses and their knobs stand in [[sweep]]";

/// Whether a base has sections and keys that a run has, before any entry is blamed for it.
fn readable(base: &Table) -> Result<()> {
    let mut table = base.clone();
    read::assign(&mut table, "loss=dpo")?;
    read::value::<Config>(table, "", &[]).map(drop)
}

fn entries(table: &mut Table) -> Result<Vec<Table>> {
    let none = || {
        Error::input("no [[sweep]]")
            .hint("add at least one, e.g. with loss = \"dpo\" and beta = [0.1, 0.5]")
    };
    let Some(Value::Array(entries)) = table.remove("sweep") else {
        return Err(none());
    };
    let tables = entries.into_iter().map(|entry| match entry {
        Value::Table(entry) => Ok(entry),
        _ => Err(none()),
    });
    let tables: Vec<Table> = tables.collect::<Result<_>>()?;
    if tables.is_empty() {
        return Err(none());
    }
    Ok(tables)
}

/// `over` on top of `base`, section by section.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
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
        return Err(Error::input(format!("`{key}` has no value")));
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
        all = all.into_iter().flat_map(with).collect();
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

fn plan(base: &Table, loss: &str, settings: &[Setting]) -> Result<PlannedRun> {
    let loss = Loss::default_of(loss)?.name();
    let mut table = base.clone();
    read::assign(&mut table, &format!("loss={loss}"))?;
    for (key, value) in settings {
        if key.starts_with("loss.") {
            return Err(Error::input(format!("`{key}`"))
                .hint("a knob is named by itself, beside its loss: beta = [0.1, 0.5]"));
        }
        let key = match key.contains('.') {
            true => key.clone(),
            false => format!("loss.{loss}.{key}"),
        };
        read::assign(&mut table, &format!("{key}={value}"))?;
        // Now, for the error of a value does not say whose it is.
        read::value::<Config>(table.clone(), "", &[]).map_err(|error| error.at(key))?;
    }
    let text = |(key, value): &Setting| match value {
        Value::String(word) => format!("{key}={word}"),
        value => format!("{key}={value}"),
    };
    let settings = settings.iter().map(text).collect::<Vec<_>>().join(" ");
    let mut config = Config::resolved(table, "", &[])?;
    let name = format!("{loss} {settings}");
    let name = name.trim().replace([' ', '/', '\\'], "-");
    config.run.output_dir = config.run.output_dir.join(name);
    // What lies in its folder unfinished is gone on with.
    config.run.overwrite = false;
    Ok(PlannedRun {
        loss: loss.to_owned(),
        settings,
        config,
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
        for (entries, words) in [
            ("", ["[[sweep]]", "loss"]),
            ("[[sweep]]\nbeta = 0.1\n", ["[[sweep]] 1", "`loss`"]),
            ("[[sweep]]\nloss = \"dop\"\n", ["[[sweep]] 1", "`dpo`?"]),
            (
                "[[sweep]]\nloss = \"dpo\"\ngamma = [1]\n",
                ["[[sweep]] 1", "gamma"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\nbeta = []\n",
                ["beta", "no value"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\n[[sweep]]\nloss = [\"dpo\"]\n",
                ["dpo", "twice"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\nrun.sed = 1\n",
                ["[[sweep]] 1", "`seed`?"],
            ),
            (
                "[[sweep]]\nloss = \"dpo\"\n\"loss.sft.weight\" = 1\n",
                ["[[sweep]] 1", "loss.sft.weight"],
            ),
            (
                "[loss.dpo]\n[[sweep]]\nloss = \"dpo\"\n",
                ["[loss]", "[[sweep]]"],
            ),
            (
                "[batch]\nsize = 3\n[[sweep]]\nloss = \"dpo\"\n",
                ["`size`", "batch_size"],
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
            assert!(error.contains(&format!("--set {set}")), "{error}");
        }
    }
}
