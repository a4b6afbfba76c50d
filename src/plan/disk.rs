//! What a run leaves on disk, in bytes.

use serde::Serialize;

use super::rows::{Rows, draws};
use crate::checkpoint::SaveDtype;
use crate::config::Config;
use crate::loss::Role;
use crate::model::numerics::{Numerics, States};
use crate::model::parameters::Layout;
use crate::optim::Method;

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
    /// Bytes of the final model: the weights in `save_dtype`.
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
    pub total: u64,
}

impl Disk {
    /// Those of a run of `steps`.
    pub fn of(config: &Config, layout: &Layout, gpu: bool, rows: &Rows, steps: u64) -> Self {
        let (all, trained) = (layout.len as u64, layout.trainable_len as u64);
        let model = all * config.model.save_dtype.bytes();
        let (of_all, of_trained) = state_width(config, gpu);
        let checkpoint = model + all * of_all + trained * of_trained;
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
        Self {
            model,
            checkpoint,
            checkpoints,
            reference,
            samples,
            total: (checkpoints + 1) * checkpoint + reference + samples,
        }
    }
}

/// Bytes of any parameter in the training state, and of one that is trained.
fn state_width(config: &Config, gpu: bool) -> (u64, u64) {
    let numerics = Numerics::new(config.model.dtype, gpu).updated(config.optimizer.states);
    let moment = match numerics.master {
        Some(States::Split) => 2,
        Some(States::F32) | None => 4,
    };
    let moments = match config.optimizer.optim {
        Method::RmsProp => moment,
        Method::AdamW | Method::Adam => 2 * moment,
    };
    let exact = match config.model.save_dtype {
        SaveDtype::F32 => 0,
        SaveDtype::F16 | SaveDtype::BF16 => 4,
    };
    let moving = match &config.reference {
        Some(_) => numerics.storage.size_in_bytes() as u64,
        None => 0,
    };
    (exact + moving, moments)
}

/// Whether the run scores its rows under the reference.
pub(super) fn scores_reference(config: &Config) -> bool {
    config.has_reference() && config.data.reference_log_probs.is_none()
}
