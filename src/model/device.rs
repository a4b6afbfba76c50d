//! The choice of a device by name.

use candle_core::Device;

use crate::error::{Error, Result};

/// `auto`, `cpu`, or `cuda:N` in a build with CUDA.
pub fn open(name: &str) -> Result<Device> {
    match name {
        "auto" | "cpu" => Ok(Device::Cpu),
        cuda if cuda == "cuda" || cuda.starts_with("cuda:") => {
            Err(Error::input(format!("device \"{cuda}\": this build of expo has no CUDA"))
                .hint("valid here: auto, cpu"))
        }
        other => Err(Error::input(format!("device \"{other}\"")).hint("valid: auto, cpu, cuda:N")),
    }
}
