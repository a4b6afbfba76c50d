//! The records of a run for TensorBoard, named as users of transformers know them.
//!
//! *Why*: an event file is never changed. A resumed run starts another one, whose first record makes
//! TensorBoard drop the steps that are made again; in an empty directory it repeats all records.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::log::Log;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::io::durable::remove_file;
use crate::io::untrusted::{self, Line};
use crate::report::events::{When, restart, scalars, text, version};
use crate::run_dir::{METRICS, Record, TENSORBOARD, Timing, step};

/// An open event file.
pub(super) struct Events(Log);

impl Events {
    /// Opens a new file if the run asks for one; `metrics.jsonl` must end where the run resumes.
    pub fn open(config: &Config) -> Result<Option<Self>> {
        if !config.run.tensorboard() {
            return Ok(None);
        }
        let folder = folder(&config.run.output_dir);
        fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, &error))?;
        let before = files(&folder)?;
        let mut events = Self(Log::create(&folder.join(name(before.last())))?);
        events.0.append_bytes(&version(now()))?;
        let records = records(&config.run.output_dir.join(METRICS))?;
        if before.is_empty() {
            let config = format!("```toml\n{}```\n", config.to_toml()?);
            events.0.append_bytes(&text(at(0), "config", &config))?;
            records
                .iter()
                .try_for_each(|record| events.record(record))?;
        } else {
            let next = records.last().map_or(0, |record| step(record) + 1);
            events.0.append_bytes(&restart(at(next)))?;
        }
        Ok(Some(events))
    }

    /// Writes a record: `train/loss`, `eval/loss` and so on.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let is_eval = record.keys().any(|name| name.starts_with("eval_"));
        let tag = |name: &str| match name.strip_prefix("eval_") {
            Some(name) => format!("eval/{name}"),
            None => format!("train/{name}"),
        };
        // The epoch of an evaluation is that of the training record of its step.
        let told = |name: &str| name != "step" && !(is_eval && name == "epoch");
        let told = record.iter().filter(|(name, _)| told(name));
        let figures = told.filter_map(|(name, value)| Some((tag(name), value.as_f64()?)));
        self.figures(step(record), figures.collect())
    }

    /// Writes a timing: `perf/tokens_per_second` and so on.
    pub fn timing(&mut self, timing: &Timing) -> Result<()> {
        let figures = timing.figures();
        let figures = figures.map(|(name, figure)| (format!("perf/{name}"), figure));
        self.figures(timing.step, figures.collect())
    }

    fn figures(&mut self, step: u64, figures: Vec<(String, f64)>) -> Result<()> {
        let figures = figures.iter().map(|(tag, value)| (tag.as_str(), *value));
        self.0.append_bytes(&scalars(at(step), figures))
    }

    /// The file.
    pub fn log(&self) -> &Log {
        &self.0
    }

    /// The file, to be written to.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.0
    }
}

/// Removes the event files of an older run.
pub(super) fn clear(output_dir: &Path) -> Result<()> {
    let folder = folder(output_dir);
    files(&folder)?
        .iter()
        .try_for_each(|name| remove_file(&folder.join(name)))
}

fn folder(output_dir: &Path) -> PathBuf {
    output_dir.join(TENSORBOARD)
}

/// The names of the event files of a folder, in the order in which TensorBoard reads them.
fn files(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder, &error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(START)).collect();
    names.sort();
    Ok(names)
}

const START: &str = "events.out.tfevents.";

/// A name that comes after the last one, even where the clock was set back.
fn name(last: Option<&String>) -> String {
    let name = format!("{START}{:020.9}.expo", now());
    match last.filter(|last| **last >= name) {
        Some(last) => format!("{last}.1"),
        None => name,
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

fn at(step: u64) -> When {
    When {
        wall_time: now(),
        step,
    }
}

/// The records of a log; a line that is none ends them.
fn records(path: &Path) -> Result<Vec<Record>> {
    let mut reader = std::io::BufReader::new(untrusted::open(path)?);
    let mut records = Vec::new();
    loop {
        let line = untrusted::line(&mut reader).map_err(|error| Error::io(path, &error))?;
        let Line::Whole(line) = line else {
            return Ok(records);
        };
        match serde_json::from_slice(&line) {
            Ok(record) => records.push(record),
            Err(_) => return Ok(records),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_time() {
        let first = name(None);
        let second = name(Some(&first));
        assert!(second > first, "{second} {first}");
        let later = format!("{START}9999999999.000000000.expo");
        assert!(name(Some(&later)) > later);
    }
}
