//! The files that a run appends to.
//!
//! Hides what of them is left from before, and that a disk may be full: training goes on, and lines
//! wait in memory.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::log::Log;
use super::state::State;
use super::tensorboard::{self, Events};
use crate::config::{Config, RunConfig};
use crate::error::{Error, Result};
use crate::session::{Event, Observer, Record, Timing};

/// A line per record.
pub(super) const METRICS: &str = "metrics.jsonl";
/// A line per training record: what it took.
pub(super) const TIMINGS: &str = "timings.jsonl";
/// The answers to the prompts of `run.eval_prompts`; there only if there are any.
pub(super) const GENERATIONS: &str = "generations.jsonl";

/// The open logs of a run.
pub(super) struct Logs {
    metrics: Log,
    timings: Log,
    generations: Option<Log>,
    events: Option<Events>,
    /// Whether lines are waiting.
    behind: bool,
}

impl Logs {
    /// Those of a run that begins in a folder, or goes on after a checkpoint of another one, whose
    /// lines up to there it takes.
    pub fn create(config: &Config, from: Option<(&Path, &State)>) -> Result<Self> {
        let run = &config.run;
        let folder = &run.output_dir;
        tensorboard::clear(folder)?;
        for name in [METRICS, GENERATIONS] {
            let own = folder.join(name);
            let theirs = from.map(|(from, _)| from.with_file_name(name));
            if let Some(theirs) = theirs.filter(|theirs| theirs.is_file()) {
                fs::copy(&theirs, &own).map_err(|error| Error::io(&theirs, &error))?;
            }
        }
        let start = State::default();
        let state = from.map_or(&start, |(_, state)| state);
        Ok(Self {
            metrics: Log::open(&folder.join(METRICS), state.metrics_bytes)?,
            timings: Log::create(&folder.join(TIMINGS))?,
            generations: generations(run, state)?,
            events: Events::open(config)?,
            behind: false,
        })
    }

    /// Those of a run that goes on in its folder after `state`.
    pub fn reopen(config: &Config, state: &State, observe: Observer) -> Result<Self> {
        let folder = &config.run.output_dir;
        let mut logs = Self {
            metrics: Log::open(&folder.join(METRICS), state.metrics_bytes)?,
            timings: Log::open(&folder.join(TIMINGS), u64::MAX)?,
            generations: generations(&config.run, state)?,
            events: None,
            behind: false,
        };
        let generations = logs.generations.as_ref().map_or(0, Log::bytes);
        for (name, bytes, known) in [
            (METRICS, logs.metrics.bytes(), state.metrics_bytes),
            (GENERATIONS, generations, state.generations_bytes),
        ] {
            if bytes < known {
                let path = folder.join(name);
                let (path, step) = (path.display(), state.step);
                let what = format!("{path}: lines before step {step} are lost");
                observe(Event::Warning(&what));
            }
        }
        let line = json!({"step": state.step, "resumed": true});
        let _ = logs.timings.append(&line);
        logs.events = Events::open(config)?;
        Ok(logs)
    }

    /// Appends a line to `metrics.jsonl`.
    pub fn record(&mut self, record: &Record, observe: Observer) {
        let written = self.metrics.append(record);
        self.logged(written, observe);
        let told = self.events.as_mut().map(|events| events.record(record));
        self.logged(told.unwrap_or(Ok(())), observe);
    }

    /// Appends a line to `timings.jsonl`, apart so that metrics are the same for the same run.
    pub fn timing(&mut self, timing: &Timing, observe: Observer) {
        let written = self.timings.append(timing);
        self.logged(written, observe);
        let told = self.events.as_mut().map(|events| events.timing(timing));
        self.logged(told.unwrap_or(Ok(())), observe);
    }

    /// Appends lines to `generations.jsonl`.
    pub fn generations(&mut self, lines: &[Value], observe: Observer) {
        let Some(log) = &mut self.generations else {
            return;
        };
        let written = lines.iter().try_for_each(|line| log.append(line));
        self.logged(written, observe);
    }

    /// Says once that a log falls behind, and once that it has caught up.
    fn logged(&mut self, written: Result<()>, observe: Observer) {
        match written {
            Err(error) if !self.behind => {
                let what = format!("{error}; training goes on, and lines wait in memory");
                observe(Event::Warning(&what));
                self.behind = true;
            }
            Ok(()) if self.behind && !self.waits() => {
                observe(Event::Warning("the logs have caught up"));
                self.behind = false;
            }
            _ => {}
        }
    }

    fn waits(&self) -> bool {
        let logs = [&self.metrics, &self.timings].into_iter();
        let events = self.events.as_ref().map(Events::log);
        let mut logs = logs.chain(&self.generations).chain(events);
        logs.any(Log::waits)
    }

    /// Keeps the bytes of the logs that a checkpoint cuts to, which are on the disk if that is possible.
    pub fn mark(&mut self, state: &mut State, observe: Observer) {
        let synced = self.metrics.sync().map(drop);
        self.logged(synced, observe);
        state.metrics_bytes = self.metrics.bytes();
        if let Some(log) = &mut self.generations {
            let synced = log.sync().map(drop);
            state.generations_bytes = log.bytes();
            self.logged(synced, observe);
        }
    }

    /// Tries once more to write what is waiting, and warns if that is in vain.
    pub fn settle(&mut self, observe: Observer) {
        let logs = [&mut self.metrics, &mut self.timings].into_iter();
        let events = self.events.as_mut().map(Events::log_mut);
        for log in logs.chain(&mut self.generations).chain(events) {
            if let Err(error) = log.sync() {
                observe(Event::Warning(&format!("{error}; the log is not whole")));
            }
        }
    }
}

/// The log of generations, where the run makes any or has made some.
fn generations(run: &RunConfig, state: &State) -> Result<Option<Log>> {
    let path = run.output_dir.join(GENERATIONS);
    match run.eval_prompts > 0 || state.generations_bytes > 0 {
        true => Log::open(&path, state.generations_bytes).map(Some),
        false => remove(&path).map(|()| None),
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, &error)),
        _ => Ok(()),
    }
}
