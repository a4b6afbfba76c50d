//! The bytes of an element, by the dtypes of a run on its device.

use candle_core::DType;

use super::Device;
use crate::config::Config;
use crate::model::numerics::{Numerics, States};
use crate::model::parameters::Layout;

/// An f32: the moments beside f32 weights, and such weights.
const F32: u64 = 4;

/// Bytes of an element or a parameter.
pub(super) struct Bytes {
    pub weight: u64,
    /// The dtype of weights in flat buffers.
    pub storage: DType,
    /// Of f32 weights beside bf16 ones.
    pub master: u64,
    /// Of a moment that is not kept in 8 bits.
    moment: u64,
    /// What blocks compute beside the residual stream.
    pub activation: u64,
    /// bf16 beside f32.
    pub mixed: bool,
    /// Whether it is a GPU.
    pub gpu: bool,
}

impl Bytes {
    /// On the CPU, and in f32, all is f32: with AdamW 16 bytes a parameter, gradients included, 10 with
    /// moments in 8 bits. In bf16 on a GPU 18, or 12 with `states = "split"`.
    pub fn of(config: &Config, device: &Device) -> Self {
        let states = config.optimizer.states;
        let numerics = Numerics::new(config.model.dtype, device.gpu).updated(states);
        let stored = numerics.storage.size_in_bytes() as u64;
        let (master, moment) = match numerics.master {
            None => (0, F32),
            Some(States::F32) => (F32, F32),
            Some(States::Split) => (2, 2),
        };
        Self {
            weight: stored,
            storage: numerics.storage,
            master,
            moment,
            activation: stored,
            mixed: numerics.mixed(),
            gpu: device.gpu,
        }
    }

    /// Of the moments of what is trained.
    pub fn moments(&self, config: &Config, layout: &Layout) -> u64 {
        config.optimizer.optim.moment_bytes(layout, self.moment)
    }
}
