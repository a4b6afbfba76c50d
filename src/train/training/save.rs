//! Checkpoints, and the final model, which must not be lost to a disk that fails at the end.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::Training;
use crate::checkpoint::{self, SaveDtype, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::io::durable::parent;
use crate::io::model_dir::OtherTensors;
use crate::ranks::{share, share_results};
use crate::session::{Event, Observer};
use crate::train::MovingReference;
use crate::train::files::Files;

/// How long to wait after each failed attempt to save the final model but the last one.
const WAITS: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(750),
    Duration::from_millis(1500),
];

/// Names that are tried for a model that could not be saved where it belongs.
const RESCUED: std::ops::Range<u32> = 1..100;

impl Training {
    pub(super) fn save(&mut self, observe: Observer) -> Result<Option<PathBuf>> {
        self.log_marks(observe);
        let ranks = self.lanes.ranks();
        let moving = self.moving.as_ref().filter(|_| self.state.reference_moved);
        let state = serde_json::to_value(&self.state);
        let snapshot = Snapshot {
            model: &self.model,
            files: &self.saved,
            dtype: self.config.model.save_dtype,
            moments: self.optimizer.moments(),
            moment_bytes: self.optimizer.moment_bytes(self.model.weights()),
            reference: moving.map(MovingReference::weights),
            ranks,
            state: state.map_err(|error| Error::failed(error.to_string()))?,
        };
        let saved = match &mut self.files {
            Some(files) => files.checkpoint(&snapshot, &self.state, observe),
            // Whether it is there the first rank says.
            None => match snapshot.save_part() {
                Err(error) if *error.kind() == Kind::Rank => Err(error),
                _ => Ok(None),
            },
        };
        let saved = share_results(&ranks.without_limit(), "a checkpoint", saved, 0)?;
        Ok(saved.into_iter().next().flatten())
    }

    /// Saves the run where it is, unless that was done a moment ago.
    pub(super) fn stop(&mut self, observe: Observer) -> Result<PathBuf> {
        let files = self.files.as_ref();
        let path = files.and_then(|files| files.at(self.state.step));
        let paths = share(self.lanes.ranks(), "a checkpoint that is there", path)?;
        if let Some(path) = paths.into_iter().flatten().next() {
            return Ok(path);
        }
        let saved = self.save(observe)?;
        saved.ok_or_else(|| {
            let (step, folder) = (self.state.step, self.config.run.output_dir.display());
            let newest = self.files.as_ref().map_or_else(String::new, Files::newest);
            Error::failed(format!(
                "{folder}: interrupted after step {step}, which could not be saved; {newest}"
            ))
        })
    }

    /// Writes the final model. Where the disk will not have it, after some attempts, the weights are kept
    /// otherwise: in a checkpoint, or as a model under another name.
    ///
    /// # Errors
    /// Says what failed and where the weights are. If another process owns the run, or a weight is not
    /// finite, they are not written.
    pub(super) fn export(&mut self, observe: Observer) -> Result<()> {
        if self.files.is_none() {
            return Ok(());
        }
        let mut waits = WAITS.iter();
        let error = loop {
            let Err(error) = self.try_export(observe) else {
                observe(Event::Saved(&self.config.run.output_dir));
                return Ok(());
            };
            let is_taken_over = self.files.as_ref().is_some_and(Files::is_taken_over);
            if error.is_non_finite() || is_taken_over {
                return Err(error);
            }
            // Waiting makes no weight fit a dtype.
            let fits = checkpoint::check_weights(&self.model, self.config.model.save_dtype);
            match waits.next().filter(|_| fits.is_ok()) {
                Some(wait) => {
                    let what = format!("{error}; trying again to save the model");
                    observe(Event::Warning(&what));
                    sleep(*wait);
                }
                None => break error,
            }
        };
        // Other ranks, which have the other moments, are done.
        let alone = self.lanes.ranks().size() == 1;
        if alone && let Ok(path) = self.stop(observe) {
            return Err(error
                .with_fact(|fact| {
                    let path = path.display();
                    format!("{fact}; the model could not be saved; its weights are in {path}")
                })
                .hint("resume the run to save it again")
                .option("resume", "auto"));
        }
        let rescued = self.rescue();
        Err(error.with_fact(|fact| match rescued {
            Some(path) => {
                let path = path.display();
                format!("{fact}; the model could not be saved there, and is in {path}")
            }
            None => format!("{fact}; neither the model nor a checkpoint could be saved"),
        }))
    }

    /// Notes in the state how far the logs are.
    fn log_marks(&mut self, observe: Observer) {
        if let Some(files) = &mut self.files {
            files.logs.mark(&mut self.state, observe);
        }
    }

    /// Writes what waits to be written.
    pub(super) fn settle(&mut self, observe: Observer) -> Result<()> {
        match &mut self.files {
            Some(files) => files.settle(observe),
            None => Ok(()),
        }
    }

    fn try_export(&mut self, observe: Observer) -> Result<()> {
        self.settle(observe)?;
        let (files, run) = (&self.saved, &self.config.run);
        let dtype = self.config.model.save_dtype;
        checkpoint::export(&self.model, files, &run.output_dir, dtype)
    }

    /// Saves the model under a name that is free: in the run's directory, or beside it where the directory
    /// is gone. In f32, which holds every weight; without the tensors of other files where those cannot
    /// be read any more.
    fn rescue(&self) -> Option<PathBuf> {
        let folder = &self.config.run.output_dir;
        let name = folder.file_name()?.to_string_lossy();
        let within = |number: u32| folder.join(format!("rescued-{number}"));
        let beside = |number: u32| parent(folder).join(format!("{name}-rescued-{number}"));
        let free = |path: &PathBuf| path.symlink_metadata().is_err();
        let places = [
            RESCUED.map(within).find(free).filter(|_| folder.is_dir()),
            RESCUED.map(beside).find(free),
        ];
        let mut alone = self.saved.clone();
        alone.set_other_tensors(OtherTensors::default());
        let save = |path: &Path, files| checkpoint::save(&self.model, files, path, SaveDtype::F32);
        let mut places = places.into_iter().flatten();
        places.find(|path| save(path, &self.saved).is_ok() || save(path, &alone).is_ok())
    }
}
