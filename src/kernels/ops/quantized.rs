//! Frozen matrices in few bits: made from f32 values piece by piece, and read back by rows.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use half::f16;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, fresh_of};
use crate::kernels::{cpu, cuda};

pub use crate::kernels::operands::quantized::{Format, NESTED_BLOCK, Parts, Quantized, Scales};

/// A matrix that is being quantized: its values come in order, so that it is never held whole.
#[derive(Debug, Clone)]
pub struct Quantizer {
    format: Format,
    shape: (usize, usize),
    codes: Vec<u8>,
    /// One for each block.
    scales: Vec<f32>,
    /// Values that came.
    taken: usize,
}

impl Quantizer {
    /// A matrix (rows, in), none of whose values has come.
    pub fn new(format: Format, shape: (usize, usize)) -> Self {
        Self {
            format,
            shape,
            codes: Vec::new(),
            scales: Vec::new(),
            taken: 0,
        }
    }

    /// Takes the next values, row by row; all but the last piece are whole [blocks](Format::block).
    ///
    /// NF4: the nearest of 16 values to x / (largest magnitude of the block), of two as near the lower one.
    /// Q8_0: x / d rounded, ties away from zero, where d is the largest magnitude / 127.
    ///
    /// # Errors
    /// If a piece begins within a block, more values come than the matrix has, or one is too large for an
    /// f16 scale.
    pub fn push(&mut self, values: &[f32]) -> Result<()> {
        let (rows, columns) = self.shape;
        let is_next = self.taken.is_multiple_of(self.format.block());
        if !is_next || values.len() > rows * columns - self.taken {
            return Err(Error::failed(format!(
                "{} values for a matrix of {rows} x {columns} after {}",
                values.len(),
                self.taken
            )));
        }
        let len = rows * columns;
        if self.taken == 0 {
            let bytes = match self.format {
                Format::Nf4 { .. } => len.div_ceil(2),
                Format::Q8_0 => len,
            };
            self.codes.reserve_exact(bytes.next_multiple_of(4));
            self.scales.reserve_exact(len.div_ceil(self.format.block()));
        }
        self.taken += values.len();
        match self.format {
            Format::Nf4 { .. } => {
                cpu::quantized::encode_nf4(values, &mut self.codes, &mut self.scales);
                Ok(())
            }
            Format::Q8_0 => cpu::quantized::encode_q8_0(values, &mut self.codes, &mut self.scales),
        }
    }

    /// Whether all values have come.
    pub fn is_full(&self) -> bool {
        self.taken == self.shape.0 * self.shape.1
    }

    /// The matrix on `device`.
    ///
    /// # Errors
    /// If values are missing, or there is no memory.
    pub fn finish(self, device: &Device) -> Result<Quantized> {
        let Self {
            format,
            shape,
            codes,
            scales,
            taken,
        } = self;
        if taken != shape.0 * shape.1 {
            return Err(Error::failed(format!("{taken} values for {shape:?}")));
        }
        let parts = match format {
            Format::Nf4 { double } => Parts::Nf4 {
                codes,
                map: cpu::quantized::NF4.to_vec(),
                scales: match double {
                    false => Scales::Plain(scales),
                    true => cpu::quantized::encode_scales(&scales),
                },
            },
            Format::Q8_0 => Parts::Q8_0 {
                codes,
                scales: scales.into_iter().map(f16::from_f32).collect(),
            },
        };
        Quantized::new(parts, shape, device)
    }
}

/// Rows of a matrix (rows, in) in `dtype`: each number as its format has it in f32, then rounded to the
/// nearest. f32 or bf16, in host memory also f64.
///
/// # Errors
/// If the matrix has no such rows, or there is no kernel for the dtype.
pub fn dequantize(matrix: &Quantized, rows: Range<usize>, dtype: DType) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let (count, columns) = matrix.shape();
    if rows.start > rows.end || rows.end > count {
        return Err(Error::failed(format!("rows {rows:?} of {count}")));
    }
    let like = matrix.codes();
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh_of((rows.len(), columns), dtype, like)? };
    let (first, to) = (rows.start * columns, Dst::from(&mut y));
    match Backend::of(like) {
        Backend::Cpu => cpu::quantized::dequantize(matrix, first, to),
        Backend::Cuda | Backend::Emulator => cuda::quantized::dequantize(matrix, first, to),
    }?;
    Ok(y)
}

#[cfg(test)]
mod tests;
