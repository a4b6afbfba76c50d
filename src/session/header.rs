//! What a run is, before its first step.

use crate::config::{BatchConfig, Dtype};
use crate::loss::WeightedLoss;

/// What a run is: what it minimizes, where, and how much of it there is.
#[derive(Debug, Clone)]
pub struct RunHeader {
    /// The loss, or the weighted sum of losses.
    pub loss: WeightedLoss,
    /// `cpu`, or `cuda:0` and the kind of GPU.
    pub device: String,
    /// What the model computes in.
    pub dtype: Dtype,
    /// CPU threads.
    pub threads: usize,
    /// Processes that compute together.
    pub ranks: usize,
    /// Rows per step, and how they are split into lanes and micro-batches.
    pub batch: BatchConfig,
    /// Parameters that are trained.
    pub trainable: usize,
    /// Parameters of the model.
    pub parameters: usize,
    /// Training rows of an epoch.
    pub rows: usize,
    /// Evaluation rows, if there are any.
    pub eval_rows: Option<usize>,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// How many epochs that is.
    pub epochs: f64,
    /// Steps made before, by a run that is resumed.
    pub step: u64,
}
