//! The choice of a device by name.

use std::ops::RangeInclusive;

use candle_core::Device;

use crate::error::{Error, Result};
use crate::kernels::device::{CUDA, gpu, gpus, own_gpu};

/// The numbers of a device that is several GPUs, `cuda:0-7`.
pub fn several(name: &str) -> Option<RangeInclusive<usize>> {
    let (first, last) = name.strip_prefix("cuda:")?.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first < last).then_some(first..=last)
}

/// Whether a device is one GPU by its number.
pub fn is_one_gpu(name: &str) -> bool {
    name.starts_with("cuda:") && several(name).is_none()
}

/// `cpu`, `cuda:N` in a build with CUDA, `cuda`: the [GPU of this process](own_gpu), `cuda:N-M`: as well, of one of
/// several processes, or `auto`: as `cuda`, if there is a GPU.
pub fn open(name: &str) -> Result<Device> {
    let unknown = || {
        let hint = match name.to_ascii_lowercase().as_str() {
            "gpu" | "nvidia" | "0" | "cuda" | "gpu:0" => {
                "did you mean \"cuda:0\"? valid: auto, cpu, cuda:N, cuda:N-M"
            }
            "mps" | "metal" | "xpu" | "hip" | "rocm" | "tpu" | "npu" => {
                "expo computes on the CPU and on NVIDIA GPUs; valid: auto, cpu, cuda:N, cuda:N-M"
            }
            _ => "valid: auto, cpu, cuda:N, cuda:N-M",
        };
        Error::input(format!("there is no device \"{name}\"")).hint(hint)
    };
    match name {
        "auto" if gpus().unwrap_or(0) == 0 => Ok(Device::Cpu),
        "cpu" => Ok(Device::Cpu),
        "auto" | "cuda" => numbered(name, own_gpu().unwrap_or(0)),
        name if several(name).is_some() => match own_gpu() {
            Some(own) => numbered(name, own),
            None => Err(
                Error::input(format!("device \"{name}\": several GPUs of one process"))
                    .hint("start a process for each with torchrun, mpirun or srun, or set cuda:N"),
            ),
        },
        other => {
            let number = other.strip_prefix("cuda:").ok_or_else(unknown)?;
            numbered(name, number.parse().map_err(|_| unknown())?)
        }
    }
}

fn numbered(name: &str, number: usize) -> Result<Device> {
    if !CUDA {
        let what = format!("device \"{name}\": this build of expo has no CUDA");
        return Err(Error::input(what).hint(
            "valid here: auto, cpu; scripts/build_release.sh builds expo with its feature cuda",
        ));
    }
    let none = |why: &str| {
        Error::input(format!("device \"{name}\": no GPU was found{why}"))
            .hint("valid here: auto, cpu; a GPU needs an NVIDIA driver of version 580 or later")
    };
    match gpus() {
        Err(why) => Err(none(&format!(" ({why})"))),
        Ok(0) => Err(none("")),
        Ok(count) if number >= count => Err(Error::input(format!("device \"{name}\"")).hint(
            format!("this machine has {count}: cuda:0 to cuda:{}", count - 1),
        )),
        Ok(_) => gpu(number).map_err(|error| error.at(format!("device \"{name}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_gpus_are_no_device_of_one_process() {
        assert_eq!(several("cuda:0-7"), Some(0..=7));
        for one in ["cuda", "cuda:3", "cuda:7-0", "cuda:1-1", "cuda:-2", "auto"] {
            assert_eq!(several(one), None, "{one}");
        }
        assert!(is_one_gpu("cuda:3") && !is_one_gpu("cuda:0-1") && !is_one_gpu("cuda"));
        let error = open("cuda:0-1").unwrap_err().to_string();
        assert!(error.contains("several GPUs of one process"), "{error}");
    }
}
