//! A matrix as a matmul takes it.
//!
//! *Why*: training and scoring multiply many rows by matrices that change, decoding few rows by matrices that
//! do not. The second are worth laying out anew.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::Weights;
use crate::error::Result;
use crate::kernels::packed::{self, PackedMatrix};
use crate::kernels::{Dst, linear};

/// Rows of a matrix (out, in).
#[derive(Debug)]
pub(in crate::model) enum Operand<'a> {
    Dense(Tensor),
    /// In panels: what a row of the other operand gives does not depend on the rows beside it.
    Packed(&'a PackedMatrix, Range<usize>),
}

impl Operand<'_> {
    /// `x W^T + bias`, (n, in) -> (n, out), in `dtype`.
    pub fn linear(
        &self,
        weights: Weights,
        x: &Tensor,
        bias: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        match self {
            Self::Dense(matrix) => linear::linear(x, matrix, bias, dtype, weights.precision),
            Self::Packed(matrix, rows) => packed::linear(x, matrix, rows.clone(), bias),
        }
    }

    /// As [`Self::linear`], into `y`, which may be columns of a wider tensor.
    pub fn linear_into(
        &self,
        weights: Weights,
        x: &Tensor,
        bias: Option<&Tensor>,
        y: Dst,
    ) -> Result<()> {
        match self {
            Self::Dense(matrix) => linear::linear_into(x, matrix, bias, y, weights.precision),
            Self::Packed(matrix, rows) => packed::linear_into(x, matrix, rows.clone(), bias, y),
        }
    }

    /// Adds `x W^T` to `y` (n, out).
    pub fn linear_add(&self, weights: Weights, x: &Tensor, y: Dst) -> Result<()> {
        match self {
            Self::Dense(matrix) => linear::linear_add(x, matrix, y, weights.precision),
            Self::Packed(matrix, rows) => packed::linear_add(x, matrix, rows.clone(), y),
        }
    }
}
