//! The folder of a run: its config, its record, its metrics, its checkpoints.
//!
//! Hides who owns the folder, what of it is left from before, and what a full disk does to it.

use std::fs;
use std::path::{Path, PathBuf};

use super::identity::Change;
use super::log::Log;
use super::logs::Logs;
use super::output::check_output;
use super::record::{About, changes_of};
use super::state::State;
use crate::checkpoint::{Checkpoints, Snapshot, read_state, remove_model, sweep_up};
use crate::config::RunConfig;
use crate::error::{Error, Kind, Result};
use crate::io::durable::{
    check_space, create_directory, json_text, parent, remove_file, write_file,
};
use crate::io::lock::Lock;
use crate::run_dir::{MARGINS, Margins, NON_FINITE, NonFiniteStep, SUMMARY};
use crate::session::{Event, Observer};

/// Saves that may fail one after the other.
const FAILED_SAVES: u32 = 3;

/// The folder of a run that is this process's own.
pub(super) struct Files {
    run: RunConfig,
    lock: Lock,
    /// What it appends to.
    pub logs: Logs,
    /// Margins that could not be written yet.
    unkept: Option<String>,
    checkpoints: Checkpoints,
    /// The step of the best one, and its metric.
    best: Option<(u64, f64)>,
    failed_saves: u32,
}

impl Files {
    /// Makes the folder of a run that begins, in place of an older run's; or of one that goes on after
    /// a checkpoint of another folder, of which it takes a copy first, and its metrics up to there.
    pub fn create(
        about: &About,
        lock: Option<Lock>,
        from: Option<(&Path, &State)>,
        changes: &[Change],
    ) -> Result<Self> {
        let run = &about.config.run;
        let folder = &run.output_dir;
        create_directory(folder)?;
        let lock = match lock {
            Some(lock) => {
                lock.check()?;
                lock
            }
            None => take(run)?,
        };
        sweep_up(folder)?;
        // First of all the mark of a finished run, which without its model would be one all the same.
        remove_file(&folder.join(SUMMARY))?;
        let mut checkpoints = Checkpoints::open(folder)?;
        checkpoints.clear()?;
        remove_model(folder)?;
        remove_file(&folder.join(NON_FINITE))?;
        remove_file(&folder.join(MARGINS))?;
        let (mut step, mut above) = (0, None);
        if let Some((from, state)) = from {
            step = state.step;
            checkpoints.adopt(from, step)?;
            let path = from.canonicalize();
            let path = path.map_err(|error| Error::io(from, &error))?;
            keep_margins(parent(&path), folder, step)?;
            above = Some((path, state));
        }
        let from = above.as_ref().map(|(path, state)| (path.as_path(), *state));
        about.write(step, Vec::new(), changes)?;
        Ok(Self {
            run: run.clone(),
            lock,
            logs: Logs::create(about.config, from)?,
            unkept: None,
            checkpoints,
            best: None,
            failed_saves: 0,
        })
    }

    /// Opens the folder of a run that goes on after `state`, with `changes` to what was to stay.
    pub fn reopen(
        about: &About,
        lock: Lock,
        state: &State,
        changes: &[Change],
        observe: Observer,
    ) -> Result<Self> {
        let run = &about.config.run;
        let folder = &run.output_dir;
        lock.check()?;
        sweep_up(folder)?;
        remove_file(&folder.join(SUMMARY))?;
        remove_model(folder)?;
        let mut checkpoints = Checkpoints::open(folder)?;
        checkpoints.go_back(state.step)?;
        let mut best: Option<(u64, f64)> = None;
        for &step in checkpoints.steps() {
            // One that cannot be read is no candidate; it is looked at again when it is needed.
            let state = read_state::<State>(&checkpoints.path(step));
            let Some(metric) = state.ok().and_then(|state| state.metric_of(run)) else {
                continue;
            };
            if best.is_none_or(|(_, other)| run.is_better(metric, other)) {
                best = Some((step, metric));
            }
        }
        about.write(state.step, changes_of(folder), changes)?;
        keep_lines(&folder.join(NON_FINITE), state.step)?;
        keep_margins(folder, folder, state.step)?;
        Ok(Self {
            run: run.clone(),
            lock,
            logs: Logs::reopen(about.config, state, observe)?,
            unkept: None,
            checkpoints,
            best,
            failed_saves: 0,
        })
    }

    /// Writes `margins.json`, if there is room.
    pub fn margins(&mut self, margins: &Margins, observe: Observer) {
        match json_text(margins) {
            Ok(text) => self.keep_text(text, observe),
            Err(error) => observe(Event::Warning(&error.to_string())),
        }
    }

    /// What cannot be written now is tried once more at the end.
    fn keep_text(&mut self, text: String, observe: Observer) {
        let written = write_file(&self.run.output_dir.join(MARGINS), text.as_bytes());
        self.unkept = None;
        if let Err(error) = written {
            let what = format!("{error}; the margins are not kept");
            observe(Event::Warning(&what));
            self.unkept = Some(text);
        }
    }

    /// Appends a line to `non_finite.jsonl`, if there is room.
    pub fn non_finite(&self, line: &NonFiniteStep, observe: Observer) {
        let log = Log::open(&self.run.output_dir.join(NON_FINITE), u64::MAX);
        if let Err(error) = log.and_then(|mut log| log.append(line)) {
            let line = serde_json::to_string(line).unwrap_or_default();
            observe(Event::Warning(&format!("{error}; {line} is not in it")));
        }
    }

    /// Saves `checkpoint-{step}` and removes those over the limit, the oldest first. `None`, with a
    /// warning, where the disk would not have it.
    ///
    /// # Errors
    /// If another process owns the run, a value is not finite or does not fit, or the disk has refused
    /// too many times.
    pub fn checkpoint(
        &mut self,
        snapshot: &Snapshot,
        state: &State,
        observe: Observer,
    ) -> Result<Option<PathBuf>> {
        let refused = self.lock.check().and_then(|()| snapshot.check());
        let path = self.checkpoints.path(state.step);
        // Other ranks wait to hear where, or that it is nowhere.
        let space = || check_space(&self.run.output_dir, snapshot.bytes(), "a checkpoint");
        let saved = snapshot.save(&path, refused.clone().and_then(|()| space()));
        refused?;
        match saved {
            Ok(()) => self.failed_saves = 0,
            Err(error) if error.is_non_finite() || *error.kind() == Kind::Rank => {
                return Err(error);
            }
            Err(error) => {
                self.failed_saves += 1;
                let what = format!("{error}; step {} is not saved", state.step);
                if self.failed_saves == FAILED_SAVES {
                    return Err(Error::failed(format!(
                        "{what}, nor were the {} before it: {}",
                        FAILED_SAVES - 1,
                        self.newest()
                    )));
                }
                observe(Event::Warning(&what));
                return Ok(None);
            }
        }
        observe(Event::Saved(&path));
        if let Some(metric) = state.metric_of(&self.run)
            && self
                .best
                .is_none_or(|(_, best)| self.run.is_better(metric, best))
        {
            self.best = Some((state.step, metric));
        }
        let best = self.best.map(|(step, _)| step);
        let limit = self.run.save_total_limit.unwrap_or(usize::MAX);
        // What cannot be removed takes room, and nothing reads the name of the newest.
        if let Err(error) = self.checkpoints.saved(state.step, limit, best) {
            observe(Event::Warning(&error.to_string()));
        }
        Ok(Some(path))
    }

    /// What there is to go on from, in words.
    pub fn newest(&self) -> String {
        match self.checkpoints.steps().last() {
            None => "there is no checkpoint".into(),
            Some(&step) => format!("the newest is {}", self.checkpoints.path(step).display()),
        }
    }

    /// The checkpoint of this step, if there is one.
    pub fn at(&self, step: u64) -> Option<PathBuf> {
        let there = self.checkpoints.steps().contains(&step);
        there.then(|| self.checkpoints.path(step))
    }

    /// Whether another process owns the run now.
    pub fn is_taken_over(&self) -> bool {
        self.lock.is_taken_over()
    }

    /// The best checkpoint and its metric.
    pub fn best(&self) -> Option<(PathBuf, f64)> {
        let (step, metric) = self.best?;
        Some((self.at(step)?, metric))
    }

    /// Refuses to go on if another process has taken the folder; tries once more to write what is
    /// waiting, and warns if that is in vain.
    pub fn settle(&mut self, observe: Observer) -> Result<()> {
        self.lock.check()?;
        self.logs.settle(observe);
        if let Some(text) = self.unkept.take() {
            self.keep_text(text, observe);
        }
        Ok(())
    }
}

/// Locks the directory of a run that begins.
fn take(run: &RunConfig) -> Result<Lock> {
    let folder = &run.output_dir;
    let lock = Lock::take(folder)?;
    // There was no run when this process looked for one, which may be long ago.
    if check_output(run)? {
        return Err(
            Error::input("another process has begun a run here meanwhile")
                .at(folder.display())
                .hint("start again to go on with it, or choose another run.output_dir"),
        );
    }
    Ok(lock)
}

/// Takes the margins of an evaluation that is not after `step` into the folder, and leaves no others.
fn keep_margins(from: &Path, folder: &Path, step: u64) -> Result<()> {
    let own = folder.join(MARGINS);
    match Margins::open(from).ok().flatten() {
        Some(margins) if margins.step <= step && from != folder => {
            write_file(&own, json_text(&margins)?.as_bytes())
        }
        Some(margins) if margins.step <= step => Ok(()),
        _ => remove_file(&own),
    }
}

/// Removes the lines of steps that will be made again.
fn keep_lines(path: &Path, step: u64) -> Result<()> {
    let Ok(text) = fs::read_to_string(path) else {
        return Ok(());
    };
    let before = |line: &&str| {
        serde_json::from_str::<NonFiniteStep>(line).is_ok_and(|line| line.step <= step)
    };
    let kept: String = text
        .lines()
        .filter(before)
        .map(|line| format!("{line}\n"))
        .collect();
    match kept.is_empty() {
        true => remove_file(path),
        false => write_file(path, kept.as_bytes()),
    }
}
