//! Which implementation computes an operation.

use candle_core::{Device, Tensor};

use super::emulator;

/// The implementations of the operations. An operation asks for the one of its operands and calls it
/// in one `match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// Rust on the threads of the CPU, for f32 and f64 in host memory.
    Cpu,
    /// CUDA kernels on an NVIDIA GPU, for f32 and bf16.
    Cuda,
    /// The CUDA kernels compiled as C++, on tensors in host memory: for tests alone.
    Emulator,
}

impl Backend {
    /// The one that computes on this tensor.
    #[inline]
    pub fn of(tensor: &Tensor) -> Self {
        Self::on(tensor.device())
    }

    /// The one that computes on tensors of this device.
    #[inline]
    pub fn on(device: &Device) -> Self {
        if emulator::is_on() {
            Self::Emulator
        } else if super::device::CUDA && device.is_cuda() {
            Self::Cuda
        } else {
            Self::Cpu
        }
    }
}
