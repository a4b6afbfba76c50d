//! What a run leaves on disk, in bytes.

use serde::Serialize;

use super::rows::{Rows, draws};
use crate::config::{Config, SavedBytes};
use crate::loss::Role;
use crate::model::parameters::Layout;

/// Bytes of a line of the reference's column without its responses, most of them hashes.
const SCORE_LINE: u64 = 265;
/// Bytes of a response in it.
const SCORE: u64 = 80;
/// Bytes of a token as text, at most about; and of its id in a list.
const TOKEN: u64 = 4;
const TOKEN_ID: u64 = 7;
/// Bytes of a line of samples beside its texts and ids.
const SAMPLE_LINE: u64 = 170;

/// Files of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Bytes of the final model: the weights in `save_dtype`; 0 where the run writes none.
    pub model: u64,
    /// Bytes of a checkpoint: the model, the optimizer's moments, f32 weights where the model's are
    /// not, and a reference that moves.
    pub checkpoint: u64,
    /// Checkpoints that are kept, with the best one.
    pub checkpoints: u64,
    /// Bytes of the reference's log-probs in the cache, about: 0 where the run makes none.
    pub reference: u64,
    /// Bytes of samples in the cache, at most about.
    pub samples: u64,
    /// The most there is at once: the checkpoints that are kept, and one more, which takes the place
    /// of one of them or is saved when the run is stopped; at the end the final model is there instead.
    /// Of a run without checkpoints the final model: that of an early stop is not counted.
    pub total: u64,
}

impl Disk {
    /// The files of a run of `steps`.
    pub fn of(config: &Config, layout: &Layout, gpu: bool, rows: &Rows, steps: u64) -> Self {
        let SavedBytes { model, checkpoint } = config.saved_bytes(layout, gpu);
        let model = if config.run.save_model { model } else { 0 };
        let written = config.run.save_steps.map_or(0, |every| steps / every);
        let best = u64::from(config.run.metric_for_best_model.is_some());
        let limit = config.run.save_total_limit;
        let checkpoints = written.min(limit.map_or(u64::MAX, |n| n as u64 + best));
        let scores = |rows: usize, each: u64| rows as u64 * each;
        let reference = match scores_reference(config) {
            true => scores(rows.all, SCORE_LINE) + scores(rows.responses, SCORE),
            false => 0,
        };
        let of_reference = config.loss.needs().all.contains(&Role::Sampled);
        let samples = match &config.sample {
            Some(sample) if draws(config) && of_reference => {
                let tokens = sample
                    .max_new_tokens
                    .min(config.data.rows.length.max_length) as u64;
                let prompt = rows.prompt_tokens.ceil() as u64 * TOKEN;
                let line = SAMPLE_LINE + prompt + tokens * (TOKEN + TOKEN_ID);
                scores(rows.all * sample.num_samples, line)
            }
            _ => 0,
        };
        let at_once = match config.run.save_steps {
            None => model,
            Some(_) => (checkpoints + 1) * checkpoint,
        };
        Self {
            model,
            checkpoint,
            checkpoints,
            reference,
            samples,
            total: at_once + reference + samples,
        }
    }
}

/// Whether the run scores its rows under the reference.
pub(super) fn scores_reference(config: &Config) -> bool {
    config.has_reference() && config.data.reference_log_probs.is_none()
}
