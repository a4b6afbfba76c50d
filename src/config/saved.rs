//! What the model and the checkpoints of a run take on a disk, from the config and the parameters.

use super::Config;
use crate::checkpoint::SaveDtype;
use crate::model::numerics::{Numerics, States};
use crate::model::parameters::Layout;

/// Bytes of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedBytes {
    /// Of the model's files: the weights in `model.save_dtype`, and tensors that are kept as they were.
    pub model: u64,
    /// Of a checkpoint: the model, the optimizer's moments, f32 weights where the model's are not, and
    /// a reference that moves.
    pub checkpoint: u64,
}

impl Config {
    /// What a run takes on a disk that trains a model with these parameters, on a GPU or on the CPU.
    pub fn saved_bytes(&self, layout: &Layout, gpu: bool) -> SavedBytes {
        let all = layout.saved_len() as u64;
        let model = all * self.model.save_dtype.bytes() + layout.saved_beside;
        let numerics = Numerics::new(self.model.dtype, gpu).updated(self.optimizer.states);
        let moment = match numerics.master {
            Some(States::Split) => 2,
            Some(States::F32) | None => 4,
        };
        let moments = self.optimizer.optim.moment_bytes(layout, moment);
        let exact = match self.model.save_dtype {
            SaveDtype::F32 => 0,
            SaveDtype::F16 | SaveDtype::BF16 => 4,
        };
        let moving = match &self.reference {
            Some(_) => numerics.storage.size_in_bytes() as u64,
            None => 0,
        };
        SavedBytes {
            model,
            checkpoint: model + all * (exact + moving) + moments,
        }
    }
}
