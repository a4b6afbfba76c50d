//! The files of a run's folder, as a page needs them.
//!
//! Hides that a run may be going on while it is read: what is not there yet is empty, half a line at
//! the end of a log is none.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::io::untrusted::{self, Line};

/// What marks a folder as a run's.
const RUN: &str = "run.json";

/// The files that a page is made of, beside the checkpoints.
const FILES: [&str; 8] = [
    RUN,
    "config.toml",
    "metrics.jsonl",
    "timings.jsonl",
    "generations.jsonl",
    "margins.json",
    "non_finite.jsonl",
    "summary.json",
];

/// A line of a log.
pub type Record = Map<String, Value>;

/// What the folder of a run says.
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
    /// `timings.jsonl`, without what was made anew.
    pub timings: Vec<Record>,
    /// The steps of the checkpoints that it was gone on from.
    pub resumed: Vec<u64>,
    /// `generations.jsonl`.
    pub generations: Vec<Record>,
    /// `non_finite.jsonl`.
    pub non_finite: Vec<Record>,
    /// `run.json`.
    pub run: Value,
    /// `margins.json`, null where there is none.
    pub margins: Value,
    /// `summary.json`, null where the run is not finished.
    pub summary: Value,
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
    /// Reads the folder of a run. A log with a line that makes no sense is read all the same, and the
    /// page says so.
    ///
    /// # Errors
    /// If the folder holds no run, or `run.json` or another of its files cannot be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = |name: &str| folder.join(name);
        let object = |name: &str| match path(name).is_file() {
            true => untrusted::json_object(&path(name), untrusted::CONFIG),
            false => Ok(Value::Null),
        };
        let mut read = Self {
            folder: folder.to_owned(),
            name: name(folder),
            run: untrusted::json_object(&path(RUN), untrusted::CONFIG)?,
            margins: object("margins.json")?,
            summary: object("summary.json")?,
            ..Self::default()
        };
        if path("config.toml").is_file() {
            read.config = untrusted::text(&path("config.toml"), untrusted::TOML)?;
            let settings = toml::from_str(&read.config);
            read.settings = settings.map_err(|error: toml::de::Error| {
                Error::input(format!("not TOML: {}", error.message()))
                    .at(path("config.toml").display())
            })?;
        }
        let mut log = |name: &str| lines(&path(name), &mut read.remarks);
        let (records, timings) = (log("metrics.jsonl")?, log("timings.jsonl")?);
        let (generations, non_finite) = (log("generations.jsonl")?, log("non_finite.jsonl")?);
        (read.records, read.generations, read.non_finite) = (records, generations, non_finite);
        for timing in timings {
            match timing.get("resumed") {
                Some(_) => {
                    let at = step(&timing);
                    read.timings.retain(|timing| step(timing) <= at);
                    read.resumed.push(at);
                }
                None => read.timings.push(timing),
            }
        }
        read.checkpoints = checkpoints(folder);
        Ok(read)
    }

    /// The runs that a folder stands for: its own, or those of the sweep that it holds.
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

    /// What changes when a file of the folder does.
    pub fn trace(folder: &Path) -> Vec<(u64, Option<std::time::SystemTime>)> {
        let files = FILES.iter().map(|name| folder.join(name));
        let mut trace: Vec<_> = files
            .map(|path| {
                let found = std::fs::metadata(path).ok();
                let changed = found.as_ref().and_then(|found| found.modified().ok());
                (found.map_or(u64::MAX, |found| found.len()), changed)
            })
            .collect();
        trace.extend(checkpoints(folder).into_iter().map(|step| (step, None)));
        trace
    }

    /// Whether it came to its end.
    pub fn is_finished(&self) -> bool {
        !self.summary.is_null()
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
        if let Some(steps) = self.summary["steps"].as_u64() {
            return Some(steps);
        }
        if let Some(steps) = self.setting("run", "max_steps") {
            return steps.as_integer().map(|steps| steps as u64);
        }
        let epochs = self.setting("run", "num_train_epochs")?.as_float()?;
        let far = self.records.iter().rev().find(|record| step(record) > 0)?;
        let per_epoch = step(far) as f64 / far.get("epoch")?.as_f64()?;
        Some((per_epoch.round() * epochs).ceil() as u64)
    }

    /// The points of a figure: (step, value); null is NaN.
    pub fn points(&self, name: &str) -> Vec<(f64, f64)> {
        points(&self.records, name)
    }

    /// The last record that has this figure.
    pub fn last(&self, name: &str) -> Option<&Value> {
        let mut found = self.records.iter().rev().filter_map(|r| r.get(name));
        found.find(|value| value.is_number())
    }

    /// The first one.
    pub fn first(&self, name: &str) -> Option<&Value> {
        let mut found = self.records.iter().filter_map(|r| r.get(name));
        found.find(|value| value.is_number())
    }

    /// Whether any record is an evaluation's.
    pub fn has_evaluations(&self) -> bool {
        let is_eval = |record: &Record| record.keys().any(|name| name.starts_with("eval_"));
        self.records.iter().any(is_eval)
    }
}

/// The step of a line.
pub fn step(record: &Record) -> u64 {
    record.get("step").and_then(Value::as_u64).unwrap_or(0)
}

/// The points of a figure in lines of a log: (step, value); null is NaN.
pub fn points(records: &[Record], name: &str) -> Vec<(f64, f64)> {
    let with = records.iter().filter_map(|r| Some((step(r), r.get(name)?)));
    with.map(|(step, value)| (step as f64, value.as_f64().unwrap_or(f64::NAN)))
        .collect()
}

fn name(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The lines of a log that are objects.
fn lines(path: &Path, remarks: &mut Vec<String>) -> Result<Vec<Record>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let io = |error: std::io::Error| Error::io(path, &error);
    let file = untrusted::open(path)?;
    let length = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::new(file);
    let (mut records, mut number, mut read) = (Vec::new(), 0u64, 0u64);
    loop {
        number += 1;
        let line = match untrusted::line(&mut reader).map_err(io)? {
            Line::End => return Ok(records),
            Line::TooLong => {
                remarks.push(format!("{}:{number}: the line is too long", path.display()));
                return Ok(records);
            }
            Line::Whole(line) => line,
        };
        read += line.len() as u64 + 1;
        let text = std::str::from_utf8(&line).ok();
        match text.and_then(|text| untrusted::parse(text).ok()) {
            Some(Value::Object(record)) => records.push(record),
            // The end of what is being written.
            _ if read > length => return Ok(records),
            _ => remarks.push(format!("{}:{number}: not a record", path.display())),
        }
    }
}

fn checkpoints(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let steps = names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok());
    let mut steps: Vec<u64> = steps.collect();
    steps.sort_unstable();
    steps
}
