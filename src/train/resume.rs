//! Where a run goes on, if it does.
//!
//! *Why*: whether a folder's run can be gone on with is known before anything costly is done, and its
//! lock is held from then on.

mod on_ranks;

use std::path::{Path, PathBuf};

use super::identity::{Change, RunIdentity, acts_in_steps, described, refused, to_allow};
use super::output::check_output;
use super::record::frozen_of;
use super::state::State;
use crate::checkpoint::{Checkpoints, read_state};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::io::durable::{Manifest, check_no_link, verify};
use crate::io::lock::Lock;
use crate::run_dir::{SummaryRecord, checkpoint_step};
use crate::session::{Event, Observer};

/// The most checkpoints that one message names.
const MOST_NAMED: usize = 4;

/// What becomes of a run that was interrupted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Resume {
    /// `run.output_dir` must hold none, or `run.overwrite` replaces it.
    #[default]
    Never,
    /// The one in `run.output_dir` is gone on with from its newest checkpoint that is whole; where
    /// there is none, or no checkpoint yet, it begins.
    Auto,
    /// It is gone on with from this `checkpoint-STEP`, later ones in the same folder being removed.
    From(PathBuf),
}

/// What there is to go on from.
#[derive(Default)]
pub(super) struct Origin {
    /// Of `run.output_dir`, where it already exists.
    pub lock: Option<Lock>,
    /// What must not have changed.
    previous: Option<RunIdentity>,
    /// The checkpoint's folder and its state.
    pub checkpoint: Option<(PathBuf, State)>,
    /// The summary of a run that is finished.
    finished: Option<SummaryRecord>,
    /// What has changed and may.
    pub changes: Vec<Change>,
    /// Whether the checkpoint was asked for by its path.
    is_chosen: bool,
}

impl Origin {
    /// Looks at the output folder and takes it, if it holds a run. Damaged checkpoints are set aside.
    pub fn find(run: &RunConfig, resume: &Resume, observe: Observer) -> Result<Self> {
        let holds_run = check_output(run)?;
        let folder = &run.output_dir;
        let at = |error: Error| error.at(folder.display());
        if *resume != Resume::Never && run.overwrite {
            return Err(
                Error::input("run.overwrite = true replaces the run to resume")
                    .hint("leave one of the two out")
                    .option("resume", "")
                    .at_key("run.overwrite"),
            );
        }
        if let Resume::From(path) = resume {
            return Self::from_checkpoint(path, folder, holds_run);
        }
        if !holds_run {
            return Ok(Self::default());
        }
        if *resume == Resume::Never {
            return match run.overwrite {
                true => Ok(Self {
                    lock: Some(Lock::take(folder)?),
                    ..Self::default()
                }),
                false => Err(at(Error::input("holds a run already")
                    .hint(
                        "choose another run.output_dir, set run.overwrite = true to replace it, or \
                         resume it",
                    )
                    .option("resume", "auto"))),
            };
        }
        let mut origin = Self {
            lock: Some(Lock::take(folder)?),
            previous: Some(frozen_of(folder)?),
            finished: SummaryRecord::open(folder)?,
            ..Self::default()
        };
        // A finished run needs none, unless it turns out to have changed.
        if origin.finished.is_none() {
            origin.look(folder, observe)?;
        }
        Ok(origin)
    }

    /// Looks for the newest checkpoint that is whole; damaged ones are set aside.
    fn look(&mut self, folder: &Path, observe: Observer) -> Result<()> {
        let mut checkpoints = Checkpoints::open(folder)?;
        for &step in checkpoints.steps() {
            check_no_link(&checkpoints.path(step))?;
        }
        let newest = checkpoints.newest_whole(&mut |what| observe(Event::Warning(what)))?;
        if let Some(step) = newest {
            self.checkpoint = Some(opened(checkpoints.path(step))?);
        }
        Ok(())
    }

    /// A directory of the run itself that holds a whole model, where there is one.
    pub fn saved_model(&self, run: &RunConfig) -> Option<PathBuf> {
        let folder = &run.output_dir;
        let finished = || self.finished.is_some() && verify(folder).is_ok();
        let checkpoint = self.checkpoint.as_ref().map(|(path, _)| path.clone());
        checkpoint.or_else(|| finished().then(|| folder.clone()))
    }

    /// The hash under this key in what must not have changed.
    pub fn known(&self, key: &str) -> Option<&str> {
        self.previous.as_ref()?.0.get(key)?.as_str()
    }

    fn from_checkpoint(path: &Path, folder: &Path, holds_run: bool) -> Result<Self> {
        let at = |error: Error| error.at_parameter("resume");
        if checkpoint_step(path).is_none() || !path.is_dir() {
            return Err(at(Error::input("is no checkpoint")
                .at(path.display())
                .hint(there(path, folder))));
        }
        check_no_link(path).map_err(at)?;
        verify(path).map_err(at)?;
        let (path, state) = opened(path.to_owned()).map_err(at)?;
        let above = path.canonicalize().ok();
        let above = above.as_deref().and_then(Path::parent);
        let own = folder
            .canonicalize()
            .is_ok_and(|folder| above == Some(&folder));
        if holds_run && !own {
            return Err(Error::input("holds a run already")
                .at(folder.display())
                .hint("choose the run.output_dir of the run to resume, or a new one"));
        }
        Ok(Self {
            lock: own.then(|| Lock::take(folder)).transpose()?,
            previous: Some(state.frozen.clone()),
            checkpoint: Some((path, state)),
            is_chosen: true,
            ..Self::default()
        })
    }

    /// Refuses what has changed, but for the keys in `allowed`; `all` says that `identity` is complete.
    fn check(
        &mut self,
        identity: &RunIdentity,
        all: bool,
        allowed: &[String],
        run: &RunConfig,
        observe: Observer,
    ) -> Result<()> {
        let Some(previous) = &self.previous else {
            return match allowed.first() {
                Some(key) => Err(
                    Error::input(format!("`{key}`: there is no run to go on with"))
                        .at_parameter("allow_change")
                        .hint("leave it out"),
                ),
                None => Ok(()),
            };
        };
        let keys = identity.check_keys(previous, allowed);
        keys.map_err(|error| error.at_parameter("allow_change"))?;
        let changes = identity.changes(previous, all);
        let refused = refused(&changes, allowed);
        if !refused.is_empty() {
            return Err(self.changed(&refused, run));
        }
        self.changes = changes;
        let more = self.finished.is_some() && !self.changes.is_empty();
        if !(all && more) {
            return Ok(());
        }
        let looked = self.look(&run.output_dir, observe);
        if looked.is_err() || self.checkpoint.is_none() {
            return Err(
                Error::input("the run is finished and has no checkpoint to resume from")
                    .at(run.output_dir.display())
                    .hint("choose another run.output_dir, or replace the run")
                    .option("set", "run.overwrite=true"),
            );
        }
        Ok(())
    }

    /// The error of changes that were not allowed, with everything that can be done about them.
    fn changed(&self, changes: &[Change], run: &RunConfig) -> Error {
        let folder = &run.output_dir;
        let what = described(changes);
        let allow = ("allow_change", to_allow(changes));
        let named = |error: Error| error.at(folder.display());
        if self.is_chosen {
            return Error::input(format!("the checkpoint is of another config: {what}"))
                .hint("choose another checkpoint, or resume with these changes")
                .options([allow])
                .at_parameter("resume");
        }
        let set = |error: Error| error.option("set", "run.overwrite=true");
        // A run that has fewer steps now than were made cannot be resumed after all of them.
        let most = changes.iter().find(|change| change.key == "run.max_steps");
        let most = most.and_then(|change| change.new.as_u64());
        let most = most.unwrap_or(u64::MAX);
        let made = self.checkpoint.as_ref().map_or(0, |(_, state)| state.step);
        let (last, error) =
            match &self.finished {
                None if made <= most => {
                    return named(set(Error::input(format!(
                    "holds an interrupted run of another config: {what}"
                ))
                .hint(
                    "choose another run.output_dir, replace the run, or resume it with these \
                         changes",
                ))
                .options([allow]));
                }
                None => {
                    let error = format!(
                        "holds an interrupted run of another config, after step {made}: {what}"
                    );
                    (made, Error::input(error))
                }
                Some(finished) => {
                    let error = format!("holds a finished run of another config: {what}");
                    (finished.steps, Error::input(error))
                }
            };
        // After its last step there is something left to do only where the run is longer now.
        let lengths = ["run.max_steps", "run.num_train_epochs"];
        let is_longer = changes
            .iter()
            .any(|change| lengths.contains(&change.key.as_str()));
        let checkpoints = Checkpoints::open(folder).ok();
        let from = checkpoints.as_ref().and_then(|checkpoints| {
            let mut steps = checkpoints.steps().iter().rev();
            steps.find(|step| (is_longer || **step < last) && **step <= most)
        });
        named(match (from, &checkpoints) {
            (Some(step), Some(checkpoints)) => {
                let path = checkpoints.path(*step).display().to_string();
                let error = error.hint(
                    "choose another run.output_dir, replace the run, or resume from a checkpoint \
                     with these changes",
                );
                set(error).options([("resume", path), allow])
            }
            _ => set(error.hint("choose another run.output_dir, or replace the run")),
        })
    }

    /// Refuses to resume where the run has no step left in which a change would act.
    pub fn check_steps(&self, steps: u64, run: &RunConfig) -> Result<()> {
        let Some((path, state)) = &self.checkpoint else {
            return Ok(());
        };
        if state.step > steps {
            let what = format!("is after step {}, and the run has {steps}", state.step);
            return Err(Error::input(what)
                .at(path.display())
                .hint("set more steps, or resume from an earlier checkpoint")
                .option("resume", "PATH"));
        }
        let idle: Vec<Change> = self
            .changes
            .iter()
            .filter(|c| acts_in_steps(c))
            .cloned()
            .collect();
        if state.step < steps || idle.is_empty() {
            return Ok(());
        }
        let what = described(&idle);
        let error = Error::input(format!(
            "the run has {steps} steps and none is left for the change: {what}"
        ))
        .at(run.output_dir.display());
        let checkpoints = Checkpoints::open(path.parent().unwrap_or(Path::new(".")))?;
        let earlier = checkpoints.steps().iter().rev().find(|step| **step < steps);
        Err(match earlier {
            None => error
                .hint("choose another run.output_dir, or replace the run")
                .option("set", "run.overwrite=true"),
            Some(&step) => error
                .hint(
                    "choose another run.output_dir, replace the run, or resume from an earlier \
                     checkpoint",
                )
                .option("set", "run.overwrite=true")
                .options([
                    ("resume", checkpoints.path(step).display().to_string()),
                    ("allow_change", to_allow(&self.changes)),
                ]),
        })
    }

    /// Refuses a run that is finished and whose final model is not whole. Lengths are compared, no
    /// file is read.
    pub fn check_model(&self, run: &RunConfig) -> Result<()> {
        let folder = &run.output_dir;
        let Err(error) = Manifest::open(folder).and_then(|manifest| manifest.check_lengths(folder))
        else {
            return Ok(());
        };
        let error = error.with_fact(|fact| {
            format!("{fact}: the run is finished, and its final model is damaged")
        });
        let checkpoints = Checkpoints::open(folder)?;
        Err(match checkpoints.steps().last() {
            None => error
                .hint("expo verify lists what is damaged; replace the run to train the model again")
                .option("set", "run.overwrite=true"),
            Some(&step) => error
                .hint(
                    "expo verify lists what is damaged; resume from the last checkpoint to write \
                     the model again, or replace the run",
                )
                .option("resume", checkpoints.path(step).display())
                .option("set", "run.overwrite=true"),
        })
    }

    /// The summary of the run, where there is nothing left to do.
    pub fn finished(&self) -> Option<&SummaryRecord> {
        self.finished.as_ref().filter(|_| self.changes.is_empty())
    }
}

/// What there is to resume from in the place of `path`, in words.
fn there(path: &Path, folder: &Path) -> String {
    let places = [Some(path), path.parent(), Some(folder)];
    let places = places.into_iter().flatten().filter(|place| place.is_dir());
    for place in places {
        let Ok(checkpoints) = Checkpoints::open(place) else {
            continue;
        };
        let steps = checkpoints.steps();
        let shown: Vec<String> = steps
            .iter()
            .rev()
            .take(MOST_NAMED)
            .map(|&step| checkpoints.path(step).display().to_string())
            .collect();
        if !shown.is_empty() {
            let others = steps.len() - shown.len();
            let others = match others {
                0 => String::new(),
                others => format!(" and {others} older"),
            };
            return format!(
                "there are {}{others}; auto takes the latest",
                shown.join(", ")
            );
        }
    }
    format!(
        "auto, never, or a directory checkpoint-STEP of a run; {} has none",
        folder.display()
    )
}

fn opened(path: PathBuf) -> Result<(PathBuf, State)> {
    let state: State = read_state(&path)?;
    state.check().map_err(|error| error.at(path.display()))?;
    if checkpoint_step(&path) != Some(state.step) {
        return Err(
            Error::input(format!("is the checkpoint of step {}", state.step))
                .at(path.display())
                .hint("give the folder its name back"),
        );
    }
    Ok((path, state))
}
