//! What there is to go on from, as the first rank finds it and the others are told.
//!
//! *Why*: the first rank alone owns the directory, takes its lock and sets damaged checkpoints aside. What the
//! others saw there meanwhile could be something else.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Origin;
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::run_dir::SummaryRecord;
use crate::session::Observer;
use crate::train::identity::{Change, RunIdentity};
use crate::train::state::State;

/// What of an origin every rank has.
#[derive(Serialize, Deserialize)]
struct Found {
    previous: Option<RunIdentity>,
    checkpoint: Option<(PathBuf, State)>,
    finished: Option<SummaryRecord>,
    changes: Vec<Change>,
    is_chosen: bool,
}

impl Origin {
    /// As [`check`](Self::check), on the first rank for all of them.
    pub fn check_on(
        &mut self,
        ranks: &Ranks,
        identity: &RunIdentity,
        all: bool,
        allowed: &[String],
        run: &RunConfig,
        observe: Observer,
    ) -> Result<()> {
        if ranks.is_first() {
            self.check(identity, all, allowed, run, observe)?;
        }
        self.share(ranks)
    }

    /// Makes it what the first rank has found, but for the lock, which is that rank's alone.
    pub fn share(&mut self, ranks: &Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let failed = |error: serde_json::Error| Error::failed(format!("what is resumed: {error}"));
        let found = Found {
            previous: self.previous.take(),
            checkpoint: self.checkpoint.take(),
            finished: self.finished.take(),
            changes: std::mem::take(&mut self.changes),
            is_chosen: self.is_chosen,
        };
        let mut bytes = serde_json::to_vec(&found).map_err(failed)?;
        // The first looks through whole checkpoints.
        let patient = ranks.without_limit();
        patient.broadcast("what is resumed", &mut bytes)?;
        let found: Found = serde_json::from_slice(&bytes).map_err(failed)?;
        *self = Self {
            lock: self.lock.take(),
            previous: found.previous,
            checkpoint: found.checkpoint,
            finished: found.finished,
            changes: found.changes,
            is_chosen: found.is_chosen,
        };
        Ok(())
    }

    /// The number of lanes that the run has, if it is resumed.
    pub fn lanes(&self) -> Option<usize> {
        let previous = self.previous.as_ref()?;
        let lanes = previous.0.get("batch.lanes").and_then(Value::as_u64);
        Some(lanes.map_or(1, |lanes| lanes as usize))
    }
}
