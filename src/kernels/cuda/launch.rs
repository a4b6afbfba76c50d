//! Where launches and matmuls go: to the driver of a GPU, or to the emulator.

use candle_core::Tensor;

use super::driver;
use super::module::{Arg, Grid, Module, Operand, first_tensor};
use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::emulator;

impl Module {
    /// Runs `kernel` after everything launched before it.
    ///
    /// # Errors
    /// If the text does not compile, or the launch fails.
    pub fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        match Backend::of(first_tensor(args)?) {
            Backend::Cuda => driver::launch(self, kernel, grid, args),
            Backend::Emulator => emulator::launch(self, kernel, grid, args),
            Backend::Cpu => Err(elsewhere()),
        }
    }
}

/// `c` (m, n) = or += `a` (m, k) times `b` (k, n), all by columns, on the device of `like`.
///
/// # Errors
/// If cuBLAS fails.
pub fn product(like: &Tensor, [a, b, c]: [Operand; 3], shape: [usize; 3], add: bool) -> Result<()> {
    match Backend::of(like) {
        Backend::Cuda => driver::product(like.device(), [a, b, c], shape, add),
        Backend::Emulator => emulator::product([a, b, c], shape, add),
        Backend::Cpu => Err(elsewhere()),
    }
}

/// Where a tensor's first element is.
///
/// # Errors
/// If no kernel takes its dtype.
pub fn address(tensor: &Tensor) -> Result<u64> {
    match Backend::of(tensor) {
        Backend::Cuda => driver::address(tensor),
        Backend::Emulator => emulator::address(tensor),
        Backend::Cpu => Err(elsewhere()),
    }
}

fn elsewhere() -> Error {
    Error::failed("a CUDA kernel got a tensor in host memory")
}
