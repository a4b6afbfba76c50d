//! `y = x W^T + b` with a matrix laid out in panels, each row of which has the same bits whatever the
//! others are.
//!
//! In host memory alone. `x` is f64 beside f64 panels and f32 beside all others; beside bf16 panels it is
//! rounded, too, but not beside quantized ones. Sums are f32, or f64.

use std::ops::Range;

use candle_core::Tensor;

pub use crate::kernels::operands::packed::{PackedFormat, PackedMatrix};

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::cpu;
use crate::kernels::operands::quantized::Quantized;
use crate::kernels::precision::Precision;
use crate::kernels::profile::{self, Part};
use crate::kernels::tensor::{Dst, fresh};

/// A matrix (out, in), f32, f64 or bf16, in panels: bf16 ones where matmuls round their operands to it.
///
/// # Errors
/// If the matrix is not in host memory, or not contiguous.
pub fn pack(weight: &Tensor, precision: Precision) -> Result<PackedMatrix> {
    let _profile = profile::part(Part::Other);
    match Backend::of(weight) {
        Backend::Cpu if weight.is_contiguous() => cpu::packed::pack(weight, precision),
        Backend::Cpu => Err(Error::failed("panels of a matrix with gaps")),
        Backend::Cuda | Backend::Emulator => Err(not_on_a_gpu()),
    }
}

/// A matrix in few bits in panels of the same numbers.
///
/// # Errors
/// If the matrix is not in host memory.
pub fn pack_quantized(matrix: &Quantized) -> Result<PackedMatrix> {
    let _profile = profile::part(Part::Other);
    match Backend::of(matrix.codes()) {
        Backend::Cpu => cpu::packed::pack_quantized(matrix),
        Backend::Cuda | Backend::Emulator => Err(not_on_a_gpu()),
    }
}

/// `x` (n, in), `rows` of a matrix, `bias` (rows) -> (n, rows).
///
/// # Errors
/// If shapes or dtypes do not fit.
pub fn linear(
    x: &Tensor,
    matrix: &PackedMatrix,
    rows: Range<usize>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh((x.dim(0)?, rows.len()), x)? };
    linear_into(x, matrix, rows, bias, &mut y)?;
    Ok(y)
}

/// As [`linear`], into `y` (n, rows), which may be columns of a wider tensor.
///
/// # Errors
/// As of [`linear`].
pub fn linear_into<'a>(
    x: &Tensor,
    matrix: &PackedMatrix,
    rows: Range<usize>,
    bias: Option<&Tensor>,
    y: impl Into<Dst<'a>>,
) -> Result<()> {
    product(x, matrix, rows, bias, y.into(), false)
}

/// Adds `x W^T` to `y` (n, rows).
///
/// # Errors
/// As of [`linear`].
pub fn linear_add<'a>(
    x: &Tensor,
    matrix: &PackedMatrix,
    rows: Range<usize>,
    y: impl Into<Dst<'a>>,
) -> Result<()> {
    product(x, matrix, rows, None, y.into(), true)
}

fn product(
    x: &Tensor,
    matrix: &PackedMatrix,
    rows: Range<usize>,
    bias: Option<&Tensor>,
    y: Dst,
    add: bool,
) -> Result<()> {
    let _profile = profile::part(Part::Gemm);
    let ((n, k), (all, inputs)) = (x.dims2()?, matrix.shape());
    let outs = rows.len();
    let there = rows.start <= rows.end && rows.end <= all && k == inputs;
    let biased = bias.is_none_or(|bias| bias.dims() == [outs] && bias.is_contiguous());
    if !there || y.dims() != [n, outs] || !x.is_contiguous() || !biased {
        return Err(Error::failed(format!(
            "matmuls of {:?} with rows {rows:?} of {:?} and {:?} into {:?}",
            x.dims(),
            matrix.shape(),
            bias.map(Tensor::dims),
            y.dims()
        )));
    }
    match Backend::of(x) {
        Backend::Cpu => {
            profile::product(n, outs, k);
            cpu::packed::product(x, matrix, rows, bias, y, add)
        }
        Backend::Cuda | Backend::Emulator => Err(not_on_a_gpu()),
    }
}

fn not_on_a_gpu() -> Error {
    Error::failed("panels are computed with in host memory alone")
}

#[cfg(test)]
mod tests;
