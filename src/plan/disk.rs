//! What a run leaves on disk, in bytes.

use serde::Serialize;

use super::rows::{Rows, draws};
use crate::checkpoint::SaveDtype;
use crate::config::Config;
use crate::loss::Role;

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
    /// Bytes of a checkpoint, and of the final model: the weights in `save_dtype`.
    pub model: u64,
    /// Checkpoints that are kept.
    pub checkpoints: u64,
    /// Bytes of the reference's log-probs in the cache, about: 0 where the run makes none.
    pub reference: u64,
    /// Bytes of samples in the cache, at most about.
    pub samples: u64,
    /// The most there is at once: the final model beside the checkpoints that are kept and, where
    /// their number is limited, the one whose place the newest takes.
    pub total: u64,
}

impl Disk {
    /// Those of a run of `steps`.
    pub fn of(config: &Config, parameters: u64, rows: &Rows, steps: u64) -> Self {
        let width = match config.model.save_dtype {
            SaveDtype::F32 => 4,
            SaveDtype::F16 | SaveDtype::BF16 => 2,
        };
        let model = parameters * width;
        let written = config.run.save_steps.map_or(0, |every| steps / every);
        let limit = config.run.save_total_limit.map_or(u64::MAX, |n| n as u64);
        let checkpoints = written.min(limit);
        let scores = |rows: usize, each: u64| rows as u64 * each;
        let reference = match scores_reference(config) {
            true => scores(rows.all, SCORE_LINE) + scores(rows.responses, SCORE),
            false => 0,
        };
        let of_reference = config.loss.needs().all.contains(&Role::Sampled);
        let samples = match &config.sample {
            Some(sample) if draws(config) && of_reference => {
                let tokens = sample.max_new_tokens.min(config.data.max_length) as u64;
                let prompt = rows.prompt_tokens.ceil() as u64 * TOKEN;
                let line = SAMPLE_LINE + prompt + tokens * (TOKEN + TOKEN_ID);
                scores(rows.all * sample.num_samples, line)
            }
            _ => 0,
        };
        // The final model is written when the last replacement is over.
        let models = checkpoints + 1;
        Self {
            model,
            checkpoints,
            reference,
            samples,
            total: models * model + reference + samples,
        }
    }
}

/// Whether the run scores its rows under the reference.
pub(super) fn scores_reference(config: &Config) -> bool {
    config.has_reference() && config.data.reference_log_probs.is_none()
}
