//! A model folder's weights as `[model]` wants them.
//!
//! *Why*: to train, to sample and to judge is to compute with one section's dtype on its device, and
//! what that means on which device is said once.

use crate::config::ModelConfig;
use crate::error::Result;
use crate::model::numerics::{Numerics, States};
use crate::model::weights::ModelFolder;
use crate::model::{Decoder, device};

/// The model, of which what `[model]` says is trained.
///
/// # Errors
/// If a pattern of `model.trainable` matches no parameter, or nothing is trained.
pub fn with_trainable(folder: ModelFolder, config: &ModelConfig) -> Result<ModelFolder> {
    match &config.trainable {
        None => Ok(folder),
        Some(patterns) => folder
            .with_trainable(patterns)
            .map_err(|error| error.at("model.trainable")),
    }
}

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
    let device = device::open(&config.device).map_err(|error| error.at("model.device"))?;
    let mut numerics = Numerics::new(config.dtype, !device.is_cpu());
    if let Some(states) = states {
        numerics = numerics.updated(states);
    }
    let (mut model, hash) = folder.load_with(numerics, &device)?;
    model.recompute = config.recompute;
    Ok((model, hash))
}
