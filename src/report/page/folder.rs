//! The files of a run directory, as a page needs them.
//!
//! Hides that a run may be writing while it is read: an absent file is empty, an incomplete last line
//! is left out.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::io::untrusted;
use crate::run_dir::{
    ACCURACY, CONFIG, FILES, GENERATIONS, Generation, METRICS, Margins, NON_FINITE, NonFiniteStep,
    RUN, Record, RunRecord, STRICT_ACCURACY, SummaryRecord, TIMINGS, Timing, TimingLine,
    checkpoint_steps, points, read_log, step,
};

/// What a run directory says.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// Where it is.
    pub folder: PathBuf,
    /// What it is called among others.
    pub name: String,
    /// Whether a process is at work on it, where that is known.
    pub at_work: Option<bool>,
    /// `metrics.jsonl`.
    pub records: Vec<Record>,
    /// `timings.jsonl`, without steps that were repeated after a resume.
    pub timings: Vec<Timing>,
    /// The steps of the checkpoints that it was resumed from.
    pub resumed: Vec<u64>,
    /// `generations.jsonl`.
    pub generations: Vec<Generation>,
    /// `non_finite.jsonl`.
    pub non_finite: Vec<NonFiniteStep>,
    /// `run.json`.
    pub run: RunRecord,
    /// `margins.json`, if there are any.
    pub margins: Option<Margins>,
    /// `summary.json`, if the run is finished.
    pub summary: Option<SummaryRecord>,
    /// `config.toml`.
    pub config: String,
    /// The same, by keys.
    pub settings: toml::Table,
    /// The steps of the checkpoints that are there.
    pub checkpoints: Vec<u64>,
    /// What could not be read, a line each.
    pub remarks: Vec<String>,
}

impl Recorded {
    /// Reads a run directory. A log with a line that makes no sense is read all the same, and the
    /// page says so.
    ///
    /// # Errors
    /// If the directory holds no run, or `run.json` or another of its files cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut read = Self {
            folder: folder.to_owned(),
            name: name(folder),
            run: RunRecord::open(folder)?,
            margins: Margins::open(folder)?,
            summary: SummaryRecord::open(folder)?,
            ..Self::default()
        };
        let config = folder.join(CONFIG);
        if config.is_file() {
            read.config = untrusted::text(&config, untrusted::TOML)?;
            let settings = toml::from_str(&read.config);
            read.settings = settings.map_err(|error: toml::de::Error| {
                Error::input(format!("not TOML: {}", error.message())).at(config.display())
            })?;
        }
        let remarks = &mut read.remarks;
        read.records = log(folder, METRICS, remarks)?;
        let timings: Vec<TimingLine> = log(folder, TIMINGS, remarks)?;
        read.generations = log(folder, GENERATIONS, remarks)?;
        read.non_finite = log(folder, NON_FINITE, remarks)?;
        for line in timings {
            match line {
                TimingLine::Resumed(at) => {
                    read.timings.retain(|timing| timing.step <= at.step);
                    read.resumed.push(at.step);
                }
                TimingLine::Timing(timing) => read.timings.push(timing),
            }
        }
        read.checkpoints = checkpoint_steps(folder);
        Ok(read)
    }

    /// The runs that a directory stands for: its own, or those of the sweep that it holds.
    ///
    /// # Errors
    /// If there is none.
    pub fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
        if folder.join(RUN).is_file() {
            return Ok(vec![folder.to_owned()]);
        }
        let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder, &error))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut runs: Vec<PathBuf> = paths.filter(|path| path.join(RUN).is_file()).collect();
        runs.sort();
        match runs.is_empty() {
            true => Err(Error::input("holds no run: there is no run.json")
                .hint("name the output_dir of a run or of a sweep")
                .at(folder.display())),
            false => Ok(runs),
        }
    }

    /// What changes when a file of the directory does.
    pub fn trace(folder: &Path) -> Vec<(u64, Option<std::time::SystemTime>)> {
        let files = FILES.iter().map(|name| folder.join(name));
        let mut trace: Vec<_> = files
            .map(|path| {
                let found = std::fs::metadata(path).ok();
                let changed = found.as_ref().and_then(|found| found.modified().ok());
                (found.map_or(u64::MAX, |found| found.len()), changed)
            })
            .collect();
        trace.extend(
            checkpoint_steps(folder)
                .into_iter()
                .map(|step| (step, None)),
        );
        trace
    }

    /// Whether it came to its end.
    pub fn is_finished(&self) -> bool {
        self.summary.is_some()
    }

    /// A key of the config.
    pub fn setting(&self, section: &str, key: &str) -> Option<&toml::Value> {
        self.settings.get(section)?.get(key)
    }

    /// The last step that a record tells of.
    pub fn last_step(&self) -> u64 {
        self.records.last().map_or(0, step)
    }

    /// The optimizer steps of the whole run, as far as they are known.
    pub fn steps(&self) -> Option<u64> {
        if let Some(summary) = &self.summary {
            return Some(summary.steps);
        }
        if let Some(steps) = self.setting("run", "max_steps") {
            return steps.as_integer().map(|steps| steps as u64);
        }
        let epochs = self.setting("run", "num_train_epochs")?.as_float()?;
        let far = self.records.iter().rev().find(|record| step(record) > 0)?;
        let per_epoch = step(far) as f64 / far.get("epoch")?.as_f64()?;
        Some((per_epoch.round() * epochs).ceil() as u64)
    }

    /// The points of a metric: (step, value); null is NaN.
    pub fn points(&self, name: &str) -> Vec<(f64, f64)> {
        points(&self.records, name)
    }

    /// The name under which the run has a metric. Runs older than [`ACCURACY`] have only the strict one.
    pub fn name_of(&self, name: &str) -> String {
        match name.strip_suffix(ACCURACY) {
            Some(split) if !self.has(ACCURACY) => format!("{split}{STRICT_ACCURACY}"),
            _ => name.to_owned(),
        }
    }

    /// The points of a metric under the name that the run has it by.
    pub fn curve(&self, name: &str) -> Vec<(f64, f64)> {
        self.points(&self.name_of(name))
    }

    /// The last record that has this figure.
    pub fn last(&self, name: &str) -> Option<&Value> {
        let mut found = self.records.iter().rev().filter_map(|r| r.get(name));
        found.find(|value| value.is_number())
    }

    /// The last record of training and of evaluation, in one.
    pub fn last_metrics(&self) -> Record {
        let mut all = Record::new();
        for (name, value) in self.records.iter().flatten() {
            all.insert(name.clone(), value.clone());
        }
        all
    }

    /// The last value of a metric: of an evaluation if there is one, else of training.
    pub fn latest(&self, name: &str) -> Option<f64> {
        let eval = self.last(&format!("eval_{name}"));
        eval.or_else(|| self.last(name))?.as_f64()
    }

    /// The first one.
    pub fn first(&self, name: &str) -> Option<&Value> {
        let mut found = self.records.iter().filter_map(|r| r.get(name));
        found.find(|value| value.is_number())
    }

    /// Whether any record has this metric, of training or of an evaluation.
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some() || self.first(&format!("eval_{name}")).is_some()
    }

    /// Whether any record is an evaluation's.
    pub fn has_evaluations(&self) -> bool {
        let is_eval = |record: &Record| record.keys().any(|name| name.starts_with("eval_"));
        self.records.iter().any(is_eval)
    }
}

fn name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The records of a log; what could not be read goes to `remarks`.
fn log<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
    remarks: &mut Vec<String>,
) -> Result<Vec<T>> {
    let log = read_log(&folder.join(name))?;
    remarks.extend(log.remarks);
    Ok(log.records)
}
