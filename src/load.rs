//! A model folder's weights as `[model]` wants them.
//!
//! *Why*: to train, to sample and to judge is to compute with one section's dtype on its device, and
//! what that means on which device is said once.

use candle_core::DType;

use crate::config::{Dtype, ModelConfig};
use crate::error::Result;
use crate::kernels::gemm::Precision;
use crate::model::parameters::Master;
use crate::model::weights::ModelFolder;
use crate::model::{Decoder, device};
use crate::optim::States;

/// The weights to score and to sample, and their content hash.
pub fn load(folder: &ModelFolder, config: &ModelConfig) -> Result<(Decoder, String)> {
    load_with(folder, config, None)
}

/// The weights to be updated, with what `states` keeps beside bf16 ones.
pub fn load_policy(
    folder: &ModelFolder,
    config: &ModelConfig,
    states: States,
) -> Result<(Decoder, String)> {
    load_with(folder, config, Some(states))
}

fn load_with(
    folder: &ModelFolder,
    config: &ModelConfig,
    states: Option<States>,
) -> Result<(Decoder, String)> {
    let device = device::open(&config.device).map_err(|error| error.at_key("model.device"))?;
    let (precision, dtype) = match config.dtype {
        Dtype::F32 => (Precision::Full, DType::F32),
        Dtype::Bf16 if device.is_cpu() => (Precision::Bf16, DType::F32),
        Dtype::Bf16 => (Precision::Bf16, DType::BF16),
    };
    let (model, hash) = folder.load_with(dtype, &device, |elements| match states {
        Some(states) if dtype == DType::BF16 => states.master(elements, &device),
        _ => Ok(Master::Itself),
    })?;
    let mut model = model.with_precision(precision);
    model.recompute = config.recompute;
    Ok((model, hash))
}
