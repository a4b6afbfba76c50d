//! Failures of devices as errors of this crate.

use std::sync::OnceLock;

use crate::error::{Error, Kind};

/// Memory of a GPU, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// What this process holds.
    pub held: u64,
    /// What it may yet take.
    pub free: u64,
    /// What the GPU has.
    pub total: u64,
}

/// Tells of the memory of the GPU that this process uses.
type Teller = fn() -> Option<Memory>;

/// The driver's, once a GPU is open: errors know no devices.
static TELLER: OnceLock<Teller> = OnceLock::new();

/// Lets errors of a full memory say what `teller` tells.
#[cfg(feature = "cuda")]
pub(super) fn ask_memory(teller: Teller) {
    let _ = TELLER.set(teller);
}

fn gpu_memory() -> Option<Memory> {
    TELLER.get().and_then(|teller| teller())
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        use candle_core::Error as Candle;
        match error {
            // A backtrace is for those who work on candle.
            Candle::WithBacktrace { inner, .. } => Self::from(*inner),
            error => of_device(error.to_string()),
        }
    }
}

/// The error for what a device said.
pub(super) fn of_device(said: String) -> Error {
    match said.contains("OUT_OF_MEMORY") || said.contains("out of memory") {
        true => out_of_memory(None, gpu_memory()),
        false => Error::failed(said),
    }
}

/// The error of an allocation of so many bytes.
pub(super) fn of_allocation(error: candle_core::Error, bytes: usize) -> Error {
    let error = Error::from(error);
    match error.kind() {
        Kind::OutOfMemory => out_of_memory(Some(bytes as u64), gpu_memory()),
        _ => error,
    }
}

fn out_of_memory(asked: Option<u64>, memory: Option<Memory>) -> Error {
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let mut parts = Vec::new();
    parts.extend(asked.map(|bytes| format!("{} asked for", gib(bytes))));
    if let Some(Memory { held, free, total }) = memory {
        let (held, free, total) = (gib(held), gib(free), gib(total));
        parts.push(format!("{held} held, {free} free of {total}"));
    }
    Error::out_of_memory("GPU").with_fact(|fact| match parts.is_empty() {
        true => fact.to_owned(),
        false => format!("{fact}: {}", parts.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_memory_says_what_was_asked_held_and_free() {
        let memory = Memory {
            held: 70 << 30,
            free: 1 << 29,
            total: 79 << 30,
        };
        let error = out_of_memory(Some(3 << 30), Some(memory));
        assert_eq!(
            error.to_string(),
            "the GPU is out of memory: 3.00 GiB asked for, 70.00 GiB held, 0.50 GiB free of 79.00 GiB"
        );
        assert_eq!(error.exit_code(), 2);
        let error = out_of_memory(None, None);
        assert_eq!(error.to_string(), "the GPU is out of memory");
        let said = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        let error = of_allocation(candle_core::Error::Msg(said.into()), 1 << 29);
        assert!(error.to_string().contains("0.50 GiB asked for"), "{error}");
    }
}
