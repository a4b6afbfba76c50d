//! The files that a run appends to.
//!
//! Hides what is kept of them on resume, and full disks: training continues, and lines are kept in
//! memory.

use std::fs;
use std::path::Path;

use super::log::Log;
use super::state::State;
use super::tensorboard::{self, Events};
use crate::config::{Config, RunConfig};
use crate::error::{Error, Result};
use crate::io::durable::remove_file;
use crate::run_dir::{
    GENERATIONS, Generation, METRICS, Record, Resumed, TIMINGS, Timing, TimingLine,
};
use crate::session::{Event, Observer};

/// The open logs of a run.
pub(super) struct Logs {
    metrics: Log,
    timings: Log,
    generations: Option<Log>,
    events: Option<Events>,
    /// Whether lines are pending.
    behind: bool,
}

impl Logs {
    /// The logs of a new run, or of one that continues from a checkpoint of another run, with its lines
    /// up to there.
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

    /// The logs of a run that resumes in its own directory after `state`.
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
        let (step, resumed) = (state.step, true);
        let line = TimingLine::Resumed(Resumed { step, resumed });
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

    /// Appends a line to `timings.jsonl`.
    pub fn timing(&mut self, timing: &Timing, observe: Observer) {
        let written = self.timings.append(timing);
        self.logged(written, observe);
        let told = self.events.as_mut().map(|events| events.timing(timing));
        self.logged(told.unwrap_or(Ok(())), observe);
    }

    /// Appends lines to `generations.jsonl`.
    pub fn generations(&mut self, lines: &[Generation], observe: Observer) {
        let Some(log) = &mut self.generations else {
            return;
        };
        let written = lines.iter().try_for_each(|line| log.append(line));
        self.logged(written, observe);
    }

    /// Warns once when a log falls behind, and once when it has caught up.
    fn logged(&mut self, written: Result<()>, observe: Observer) {
        match written {
            Err(error) if !self.behind => {
                let what = format!("{error}; training continues, and lines are kept in memory");
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

    /// Records in `state` the bytes that resuming truncates the logs to, after an attempt to sync them.
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

    /// Retries pending lines, and warns if that fails.
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

/// The log of generations, if the run samples any or did before.
fn generations(run: &RunConfig, state: &State) -> Result<Option<Log>> {
    let path = run.output_dir.join(GENERATIONS);
    match run.eval_prompts > 0 || state.generations_bytes > 0 {
        true => Log::open(&path, state.generations_bytes).map(Some),
        false => remove_file(&path).map(|()| None),
    }
}
