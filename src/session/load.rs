//! Device and numerics of a command, and a model's weights loaded for them.
//!
//! *Why*: to train, to sample and to judge is to compute with one section's dtype on its device, and
//! what that means on which device is said once.

use candle_core::{Device, DeviceLocation};

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::kernels::device::kind;
use crate::model::numerics::{Numerics, States};
use crate::model::weights::ModelFolder;
use crate::model::{Decoder, device};

/// What `[model]` says of the computation, its device opened.
#[derive(Debug, Clone)]
pub struct Compute {
    /// The device.
    pub device: Device,
    numerics: Numerics,
    recompute: bool,
}

impl Compute {
    /// Opens the device that the section names.
    pub fn open(config: &ModelConfig) -> Result<Self> {
        let device = device::open(&config.device).map_err(|error| error.at_key("model.device"))?;
        Ok(Self {
            numerics: Numerics::new(config.dtype, !device.is_cpu()),
            device,
            recompute: config.recompute,
        })
    }

    /// The device's name: `cpu`, or `cuda:0` and the kind of GPU.
    ///
    /// # Errors
    /// If the GPU does not say what it is.
    pub fn place(&self) -> Result<String> {
        Ok(match self.device.location() {
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}, {}", kind(&self.device)?),
            _ => "cpu".to_owned(),
        })
    }

    /// In what log-probs are computed: a policy is its reference only where both are computed alike.
    pub fn name(&self) -> &'static str {
        self.numerics.name()
    }

    /// Loads weights to score and to sample; with their content hash.
    pub fn load(&self, folder: &ModelFolder) -> Result<(Decoder, String)> {
        let (mut model, hash) = folder.load_with(self.numerics, &self.device)?;
        model.recompute = self.recompute;
        Ok((model, hash))
    }

    /// As [`load`](Self::load), of weights to sample and for nothing else, which take less memory.
    pub fn load_for_sampling(&self, folder: &ModelFolder) -> Result<(Decoder, String)> {
        self.load(&folder.clone().for_sampling())
    }

    /// Loads weights to be updated, with what `states` keeps beside bf16 ones, but for the values of an
    /// adapter; with their content hash.
    ///
    /// # Errors
    /// If they are quantized and there is no adapter beside them.
    pub fn load_policy(&self, folder: &ModelFolder, states: States) -> Result<(Decoder, String)> {
        folder.check_trains()?;
        let numerics = self.numerics.updated(states);
        let (mut model, hash) = folder.load_base(numerics, &self.device)?;
        model.recompute = self.recompute;
        Ok((model, hash))
    }

    /// As [`load`](Self::load), of weights whose content hash may be known.
    ///
    /// # Errors
    /// If they have another one now.
    pub fn load_known(&self, folder: &ModelFolder, hash: Option<&str>) -> Result<Decoder> {
        let (model, found) = self.load(folder)?;
        match hash.is_none_or(|hash| hash == found) {
            true => Ok(model),
            false => Err(Error::failed(format!(
                "{}: the weights changed while they were read",
                folder.path.display()
            ))),
        }
    }
}
