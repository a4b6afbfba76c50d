//! The device that a run is planned for.

use std::fs;

use serde::Serialize;

use super::cards::{CARDS, Card};
use crate::config::Dtype;
use crate::error::{Error, Result};

/// A GiB, in bytes.
pub const GIB: f64 = (1u64 << 30) as f64;

/// Bytes as a person reads them: in GiB, or in MiB where that is little.
pub fn size(bytes: u64) -> String {
    let gib = bytes as f64 / GIB;
    match gib < 0.1 {
        true => format!("{:.1} MiB", gib * 1024.0),
        false => format!("{gib:.1} GiB"),
    }
}

/// The share of memory that is kept free: for the driver or the system, the program's code and what
/// allocators cannot use.
const KEPT_FREE: f64 = 0.03;

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
    /// How many of it share the run, each of them with a rank.
    #[serde(skip_serializing_if = "is_one")]
    pub ranks: usize,
    /// Bytes per second that each rank sends to the others, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<f64>,
    /// Why expo does not run on it, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
}

fn is_one(ranks: &usize) -> bool {
    *ranks == 1
}

/// How fast a device is at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Floating-point operations per second in large matmuls.
    pub flops: f64,
    /// Bytes per second between the device and its memory.
    pub bandwidth: f64,
}

impl Device {
    /// The names that [`named`](Self::named) knows.
    pub fn names() -> Vec<&'static str> {
        CARDS.iter().map(|card| card.name).collect()
    }

    /// A GPU by its name, for matmuls in `dtype`. Case, dashes and spaces of the name do not count.
    ///
    /// # Errors
    /// Names the valid ones.
    pub fn named(name: &str, dtype: Dtype) -> Result<Self> {
        Self::of_card(Card::find(name)?, dtype)
    }

    /// The GPUs that expo runs on, from the least memory to the most.
    pub(super) fn supported(dtype: Dtype) -> Vec<Self> {
        let cards = CARDS.iter().filter(|card| card.unsupported().is_none());
        let mut all: Vec<Self> = cards
            .filter_map(|card| Self::of_card(card, dtype).ok())
            .collect();
        all.sort_by_key(|device| device.memory);
        all
    }

    fn of_card(card: &Card, dtype: Dtype) -> Result<Self> {
        let tflops = match dtype {
            Dtype::F32 => card.f32,
            Dtype::Bf16 => card.bf16,
        };
        let device = Self::described(card.name, card.memory, Some((tflops, card.bandwidth)))?;
        Ok(Self {
            unsupported: card.unsupported(),
            ..device
        })
    }

    /// A GPU with this memory in GiB and, where they are known, TFLOP/s in matmuls of the run's
    /// dtype and TB/s.
    ///
    /// # Errors
    /// If a figure is not a finite number above 0.
    pub fn described(name: &str, memory: f64, rates: Option<(f64, f64)>) -> Result<Self> {
        let (tflops, bandwidth) = rates.unwrap_or((1.0, 1.0));
        for (what, x, unit) in [
            ("memory", memory, "GiB"),
            ("rate of matmuls", tflops, "TFLOP/s"),
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
            ranks: 1,
            link: None,
            unsupported: None,
        })
    }

    /// The CPU of this machine, whose speed is not known.
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
            ranks: 1,
            link: None,
            unsupported: None,
        }
    }

    /// So many of it, each with a rank of the run.
    #[must_use]
    pub fn with_ranks(self, ranks: usize) -> Self {
        Self { ranks, ..self }
    }

    /// Ranks that send so many GB to the others in a second.
    ///
    /// # Errors
    /// If that is not a finite number above 0.
    pub fn with_link(self, gigabytes: f64) -> Result<Self> {
        if !(gigabytes > 0.0 && gigabytes.is_finite()) {
            let what = format!("the bandwidth between ranks is {gigabytes} GB/s");
            return Err(Error::input(what).hint("it must be > 0 and finite"));
        }
        let link = Some(1e9 * gigabytes);
        Ok(Self { link, ..self })
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
