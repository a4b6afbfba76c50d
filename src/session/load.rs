//! Device and numerics of a command, and a model's weights loaded for them.
//!
//! *Why*: to train, to sample and to judge is to compute with one section's dtype on its device, and
//! what that means on which device is said once.

use candle_core::{DType, Device};

use crate::config::{Dtype, ModelConfig};
use crate::error::Result;
use crate::kernels::Precision;
use crate::model::parameters::Master;
use crate::model::weights::ModelFolder;
use crate::model::{Decoder, device};
use crate::optim::States;

/// What `[model]` says of the computation, its device opened.
#[derive(Debug, Clone)]
pub struct Compute {
    /// The device.
    pub device: Device,
    dtype: Dtype,
    recompute: bool,
}

impl Compute {
    /// Opens the device that the section names.
    pub fn open(config: &ModelConfig) -> Result<Self> {
        let device = device::open(&config.device).map_err(|error| error.at_key("model.device"))?;
        Ok(Self {
            device,
            dtype: config.dtype,
            recompute: config.recompute,
        })
    }

    /// In what log-probs are computed. A GPU rounds more to bf16 than the CPU does, and a policy is
    /// its reference only where both are computed alike.
    pub fn name(&self) -> &'static str {
        match self.dtype {
            Dtype::F32 => "f32",
            Dtype::Bf16 if self.device.is_cpu() => "bf16",
            Dtype::Bf16 => "bf16 on a GPU",
        }
    }

    /// Loads weights to score and to sample; with their content hash.
    pub fn load(&self, folder: &ModelFolder) -> Result<(Decoder, String)> {
        self.load_with(folder, None)
    }

    /// Loads weights to be updated, with what `states` keeps beside bf16 ones; with their content hash.
    pub fn load_policy(&self, folder: &ModelFolder, states: States) -> Result<(Decoder, String)> {
        self.load_with(folder, Some(states))
    }

    fn load_with(&self, folder: &ModelFolder, states: Option<States>) -> Result<(Decoder, String)> {
        let device = &self.device;
        let (precision, dtype) = match self.dtype {
            Dtype::F32 => (Precision::Full, DType::F32),
            Dtype::Bf16 if device.is_cpu() => (Precision::Bf16, DType::F32),
            Dtype::Bf16 => (Precision::Bf16, DType::BF16),
        };
        let (model, hash) = folder.load_with(dtype, device, |elements| match states {
            Some(states) if dtype == DType::BF16 => states.master(elements, device),
            _ => Ok(Master::Itself),
        })?;
        let mut model = model.with_precision(precision);
        model.recompute = self.recompute;
        Ok((model, hash))
    }
}
