//! What a run knows beside its tensors: `training_state.json` of a checkpoint.
//!
//! *Why*: the order of rows and every random draw are functions of the step, so this is all there is.
//! Nothing here depends on time or place: the same step of the same run has the same bytes.

use serde::{Deserialize, Serialize};

use super::health::LengthPreference;
use super::identity::RunIdentity;
use super::metrics::Averages;
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::run_dir::{Record, RunWarning};

/// Changing what is in a state, or what a step does with it, means changing this.
const VERSION: u32 = 1;

/// A run between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// Steps made.
    pub step: u64,
    /// Updates of the optimizer: steps without those that were passed over.
    pub updates: u64,
    /// Training rows seen.
    pub rows: usize,
    /// Tokens computed with gradient.
    pub tokens: usize,
    /// Steps that were passed over because a value was not finite.
    pub passed_over: u64,
    /// The bytes of `metrics.jsonl`.
    pub metrics_bytes: u64,
    /// Those of `generations.jsonl`; checkpoints from before there was one have none.
    #[serde(default)]
    pub generations_bytes: u64,
    /// Whether the reference is another one than at the start.
    pub reference_moved: bool,
    /// What the next record will average.
    pub averages: Averages,
    /// The first and the last training record.
    pub train: Option<(Record, Record)>,
    /// The first and the last evaluation.
    pub eval: Option<(Record, Record)>,
    /// What must not have changed when the run resumes from here.
    pub frozen: RunIdentity,
    /// Updates whose gradient was clipped.
    #[serde(default)]
    pub clipped: u64,
    /// What the run warned of.
    #[serde(default)]
    pub warnings: Vec<RunWarning>,
    /// What the last evaluation preferred of its pairs' lengths.
    #[serde(default)]
    pub lengths: Option<LengthPreference>,
    /// What checkpoints are compared by, evaluated after just this step: its name and value.
    pub metric: Option<(String, f64)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            step: 0,
            updates: 0,
            rows: 0,
            tokens: 0,
            passed_over: 0,
            metrics_bytes: 0,
            generations_bytes: 0,
            reference_moved: false,
            averages: Averages::default(),
            train: None,
            eval: None,
            frozen: RunIdentity::default(),
            clipped: 0,
            warnings: Vec::new(),
            lengths: None,
            metric: None,
        }
    }
}

impl State {
    /// Refuses one of another version of the program.
    pub fn check(&self) -> Result<()> {
        if self.version == VERSION {
            return Ok(());
        }
        Err(Error::input(format!(
            "a training state of version {}, this program resumes from version {VERSION}",
            self.version
        )))
    }

    /// What checkpoints of this run are compared by, if it was evaluated after just this step.
    pub fn metric_of(&self, run: &RunConfig) -> Option<f64> {
        let (name, value) = self.metric.as_ref()?;
        (Some(name) == run.metric_for_best_model.as_ref()).then_some(*value)
    }

    /// Keeps a training record.
    pub fn trained(&mut self, record: &Record) {
        keep(&mut self.train, record);
    }

    /// Keeps an evaluation.
    pub fn evaluated(&mut self, record: &Record) {
        keep(&mut self.eval, record);
    }
}

fn keep(records: &mut Option<(Record, Record)>, record: &Record) {
    match records {
        Some((_, last)) => last.clone_from(record),
        None => *records = Some((record.clone(), record.clone())),
    }
}
