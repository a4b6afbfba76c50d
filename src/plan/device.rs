//! What a run would be made on.

use std::fs;

use serde::Serialize;

use crate::config::Dtype;
use crate::error::{Error, Result};

/// A GiB, in bytes.
pub const GIB: f64 = (1u64 << 30) as f64;

/// The share of memory that is kept free: for the driver or the system, the program's code and what
/// allocators cannot use.
const KEPT_FREE: f64 = 0.03;

/// A GPU by name.
///
/// Memory is what CUDA reports of it. The bandwidth is the data sheet's. Of the products' rates, that
/// of the h200 in bf16 is what large products reach, 790 of the data sheet's 989 TFLOP/s; the others
/// are the same share, 0.8, of the data sheet's figure for dense operands with sums in f32.
struct Gpu {
    name: &'static str,
    /// GiB.
    memory: f64,
    /// Products of bf16 operands, TFLOP/s.
    bf16: f64,
    /// Products of f32 operands, TFLOP/s.
    f32: f64,
    /// TB/s.
    bandwidth: f64,
}

const GPUS: [Gpu; 5] = [
    // 989 and 67 TFLOP/s.
    Gpu {
        name: "h200",
        memory: 139.0,
        bf16: 790.0,
        f32: 53.6,
        bandwidth: 4.8,
    },
    // The SXM board: 989 and 67 TFLOP/s.
    Gpu {
        name: "h100",
        memory: 79.0,
        bf16: 790.0,
        f32: 53.6,
        bandwidth: 3.35,
    },
    // The SXM board: 312 and 19.5 TFLOP/s.
    Gpu {
        name: "a100-80gb",
        memory: 79.0,
        bf16: 250.0,
        f32: 15.6,
        bandwidth: 2.039,
    },
    // 362 and 91.6 TFLOP/s.
    Gpu {
        name: "l40s",
        memory: 44.0,
        bf16: 290.0,
        f32: 73.3,
        bandwidth: 0.864,
    },
    // 165 and 82.6 TFLOP/s.
    Gpu {
        name: "rtx-4090",
        memory: 23.5,
        bf16: 132.0,
        f32: 66.1,
        bandwidth: 1.008,
    },
];

/// The machine or GPU that a run is planned for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Whether it is a GPU, where `dtype = "bf16"` means weights and activations in bf16.
    pub gpu: bool,
    /// Bytes of memory; `None` where the system does not say.
    pub memory: Option<u64>,
    /// How fast it is, if that is known.
    pub rates: Option<Rates>,
}

/// How fast a device is at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Floating-point operations per second in large products.
    pub flops: f64,
    /// Bytes per second between the device and its memory.
    pub bandwidth: f64,
}

impl Device {
    /// The names that [`named`](Self::named) knows.
    pub fn names() -> Vec<&'static str> {
        GPUS.iter().map(|gpu| gpu.name).collect()
    }

    /// A GPU by its name, for products in `dtype`.
    ///
    /// # Errors
    /// Names the valid ones.
    pub fn named(name: &str, dtype: Dtype) -> Result<Self> {
        let gpu = GPUS.iter().find(|gpu| gpu.name == name).ok_or_else(|| {
            let valid = Self::names().join(", ");
            Error::input(format!("unknown GPU `{name}`"))
                .hint(format!(
                    "valid: {valid}; for another give its memory and rates"
                ))
                .option("memory", "")
                .option("tflops", "")
                .option("bandwidth", "")
        })?;
        let tflops = match dtype {
            Dtype::F32 => gpu.f32,
            Dtype::Bf16 => gpu.bf16,
        };
        Self::described(name, gpu.memory, Some((tflops, gpu.bandwidth)))
    }

    /// A GPU with this memory in GiB and, where they are known, TFLOP/s in the products of the run's
    /// dtype and TB/s.
    ///
    /// # Errors
    /// If a figure is not a finite number above 0.
    pub fn described(name: &str, memory: f64, rates: Option<(f64, f64)>) -> Result<Self> {
        let (tflops, bandwidth) = rates.unwrap_or((1.0, 1.0));
        for (what, x, unit) in [
            ("memory", memory, "GiB"),
            ("rate of products", tflops, "TFLOP/s"),
            ("bandwidth", bandwidth, "TB/s"),
        ] {
            if !(x > 0.0 && x.is_finite()) {
                let what = format!("{name}'s {what} is {x} {unit}");
                return Err(Error::input(what).hint("it must be > 0 and finite"));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            gpu: true,
            memory: Some((memory * GIB) as u64),
            rates: rates.map(|(tflops, bandwidth)| Rates {
                flops: tflops * 1e12,
                bandwidth: bandwidth * 1e12,
            }),
        })
    }

    /// The processors of this machine, whose speed is not known.
    pub fn this_machine() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let installed = read("/proc/meminfo").and_then(|text| installed(&text));
        // What a container may use of it.
        let allowed = ["memory.max", "memory/memory.limit_in_bytes"]
            .iter()
            .filter_map(|file| read(&format!("/sys/fs/cgroup/{file}"))?.trim().parse().ok());
        Self {
            name: "this machine".to_owned(),
            gpu: false,
            memory: installed.into_iter().chain(allowed).min(),
            rates: None,
        }
    }

    /// The bytes that a run may take.
    pub fn usable(&self) -> Option<u64> {
        Some((self.memory? as f64 * (1.0 - KEPT_FREE)) as u64)
    }
}

/// The line `MemTotal: N kB` of proc(5)'s `meminfo`, in bytes.
fn installed(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_the_valid_ones() {
        let message = Device::named("h300", Dtype::Bf16).unwrap_err().to_string();
        assert!(Device::names().iter().all(|name| message.contains(name)));
        assert!(Device::described("x", 0.0, None).is_err());
        assert!(Device::described("x", 1.0, Some((f64::NAN, 1.0))).is_err());
    }

    #[test]
    fn a_gpu_has_the_rate_of_the_dtype() {
        let rate = |dtype| Device::named("h200", dtype).unwrap().rates.unwrap().flops;
        assert_eq!((rate(Dtype::Bf16), rate(Dtype::F32)), (790e12, 53.6e12));
    }

    #[test]
    fn the_machine_says_what_is_installed() {
        assert_eq!(installed("MemTotal:  16 kB\nMemFree: 1 kB\n"), Some(16_384));
        assert_eq!(installed("MemFree: 1 kB\n"), None);
    }
}
