//! The dtypes of computation and storage, resolved once from the config and the device.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::parameters::Master;
use crate::error::{Error, Result};
use crate::kernels::Precision;
use crate::kernels::device::zeros;

/// Dtypes that expo computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Single precision.
    #[default]
    F32,
    /// Mixed precision: matmuls round their operands to bf16 and sum in f32. On the CPU weights,
    /// activations, gradients and moments stay f32. On a GPU weights and activations are bf16; the
    /// residual stream, logits and gradients are f32, weights and moments as `optimizer.states` says.
    Bf16,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::input(format!("\"{name}\" is not a dtype")).hint("f32 or bf16")),
        }
    }
}

/// Storage of f32 master weights and optimizer moments in mixed precision on a GPU. Where weights are
/// f32 there is nothing to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum States {
    /// The weights once more in f32, and moments in f32: with AdamW 12 bytes a parameter.
    #[default]
    F32,
    /// The lower half of each f32 weight, whose upper half is the bf16 weight itself, and moments in
    /// bf16: with AdamW 6 bytes a parameter.
    Split,
}

/// In what a model is computed and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numerics {
    /// What matmuls round their operands to.
    pub compute: Precision,
    /// Dtype of weights and activations.
    pub storage: DType,
    /// What updates need beside bf16 weights; `None` where weights are not updated, or are f32.
    pub master: Option<States>,
}

impl Numerics {
    /// Of a model that is not updated.
    pub fn new(dtype: Dtype, gpu: bool) -> Self {
        let (compute, storage) = match dtype {
            Dtype::F32 => (Precision::Full, DType::F32),
            Dtype::Bf16 if gpu => (Precision::Bf16, DType::BF16),
            Dtype::Bf16 => (Precision::Bf16, DType::F32),
        };
        Self {
            compute,
            storage,
            master: None,
        }
    }

    /// Without rounding beside that of `storage`.
    pub fn exact(storage: DType) -> Self {
        Self {
            compute: Precision::Full,
            storage,
            master: None,
        }
    }

    /// The same, of a model that is updated.
    #[must_use]
    pub fn updated(mut self, states: States) -> Self {
        self.master = self.mixed().then_some(states);
        self
    }

    /// Whether weights and activations are bf16 beside an f32 residual stream.
    pub fn mixed(&self) -> bool {
        self.storage == DType::BF16
    }

    /// The dtype of the residual stream, of rotations, logits and gradients.
    pub fn stream(&self) -> DType {
        match self.storage {
            DType::BF16 => DType::F32,
            dtype => dtype,
        }
    }

    /// Zeros in the place of what so many weights need beside them.
    pub(super) fn master_weights(&self, elements: usize, device: &Device) -> Result<Master> {
        let zeros = |dtype| zeros(elements, dtype, device);
        Ok(match self.master {
            None => Master::Itself,
            Some(States::F32) => Master::F32(zeros(DType::F32)?),
            Some(States::Split) => Master::Low(zeros(DType::I16)?),
        })
    }

    /// Its name in files. A GPU rounds more to bf16 than the CPU does, and log-probs compare only where
    /// both are computed alike.
    pub fn name(&self) -> &'static str {
        match (self.compute, self.mixed()) {
            (Precision::Full, _) => "f32",
            (Precision::Bf16, false) => "bf16",
            (Precision::Bf16, true) => "bf16 on a GPU",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dtype_means_something_else_on_a_gpu() {
        let of = |dtype, gpu| Numerics::new(dtype, gpu).updated(States::Split);
        let names = [
            (Dtype::F32, false, "f32"),
            (Dtype::F32, true, "f32"),
            (Dtype::Bf16, false, "bf16"),
            (Dtype::Bf16, true, "bf16 on a GPU"),
        ];
        for (dtype, gpu, name) in names {
            let numerics = of(dtype, gpu);
            assert_eq!(numerics.name(), name);
            assert_eq!(numerics.stream(), DType::F32);
            assert_eq!(numerics.master.is_some(), numerics.mixed());
        }
    }
}
