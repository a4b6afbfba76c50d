//! The vector instructions that loops of our own use: the fastest that the CPU has, or others.
//!
//! *Why*: so that one machine can test and measure what another one runs. Matmuls of training in f32,
//! gradients of weights aside, are the `gemm` crate's, which decides for itself.

use super::cpu::level;
use crate::error::Result;

/// What selects them: `portable`, `avx2`, `avx512` or `avx512_bf16`; unset or blank: the
/// fastest are used.
pub const VARIABLE: &str = level::VARIABLE;

/// Whether [`VARIABLE`] names instructions.
///
/// # Errors
/// If it is set to something else.
pub fn check() -> Result<()> {
    level::cap().map(drop)
}
