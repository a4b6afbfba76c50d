//! `y = x W^T + b` with a matrix in panels of 16 rows, each row of `x` independent of the others.
//!
//! Hides the instruction set, and how panels and rows of `x` are shared among threads and registers.
//!
//! *Why*: a step of decoding reads every weight once for a few rows and does little else, so its bound
//! is memory. A panel is one stream of whole cache lines, no number of it is moved on its way to a
//! register, and nothing is summed across a vector. Each element is one sum in one order: no bit of
//! a row depends on the rows beside it, or on threads, so prompts are computed by the same panels.

mod format;
mod pack;
mod round;
mod rows;
mod tile;

use std::ops::Range;

use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::host::{Disjoint, each_real, read, write};
use super::lanes::Plain;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512, Avx512Bf16};
use super::level::{Level, level};
use super::linear::widened;
use super::quantized::dequantize;
use super::real::Real;
use crate::error::{Error, Result};
use crate::kernels::operands::packed::{PANEL, PackedFormat, PackedMatrix};
use crate::kernels::operands::quantized::Quantized;
use crate::kernels::precision::Precision;
use crate::kernels::tensor::{Dst, fresh_of, rows};
#[cfg(target_arch = "x86_64")]
use format::WholePairs;
use format::{Codes, Full, Pairs, SignedBytes};
use round::{pairs, pairs_of_bf16, rounded, same};
use rows::Rows;
use tile::{Panels, Take, Tiles, multiply};

/// Multiplications below which a second thread costs more than it gains.
const SMALL: usize = 1 << 17;

/// Parts of a matrix for each thread, so that none waits long for another.
const TASKS: usize = 8;

/// Panels of a part, where there are enough.
const LEAST: usize = 4;

/// A dense matrix (out, in), f32, f64 or bf16: with `Bf16` rounded, with `Full` as it is.
pub fn pack(weight: &Tensor, precision: Precision) -> Result<PackedMatrix> {
    let shape = weight.dims2()?;
    let values = read(weight);
    match (weight.dtype(), precision) {
        (DType::BF16, Precision::Bf16) => {
            let values = values.values::<bf16>()?;
            Ok(pack::dense(
                values,
                shape,
                PackedFormat::Bf16,
                2,
                pairs_of_bf16,
            ))
        }
        (DType::BF16, Precision::Full) => pack(&widened(weight, DType::F32)?, precision),
        (DType::F32, Precision::Bf16) => {
            let values = values.values::<f32>()?;
            Ok(pack::dense(
                values,
                shape,
                PackedFormat::Bf16,
                2,
                pairs::<u32>,
            ))
        }
        (DType::F64, _) => {
            let values = values.values::<f64>()?;
            Ok(pack::dense(values, shape, PackedFormat::F64, 1, same))
        }
        _ => {
            let values = values.values::<f32>()?;
            Ok(pack::dense(values, shape, PackedFormat::F32, 1, same))
        }
    }
}

/// A matrix in few bits, which stay what they are; in f32 where a block of one scale is of two rows.
pub fn pack_quantized(matrix: &Quantized) -> Result<PackedMatrix> {
    if let Some(packed) = pack::quantized(matrix)? {
        return Ok(packed);
    }
    // SAFETY: all of it is written below.
    let mut wide = unsafe { fresh_of(matrix.shape(), DType::F32, matrix.codes())? };
    dequantize(matrix, 0, (&mut wide).into())?;
    pack(&wide, Precision::Full)
}

/// `y = x W^T + bias`, or `y += x W^T` where `add`, of rows of a matrix.
pub fn product(
    x: &Tensor,
    matrix: &PackedMatrix,
    range: Range<usize>,
    bias: Option<&Tensor>,
    y: Dst,
    add: bool,
) -> Result<()> {
    each_real!(y, T => {
        let (x, bias) = (read(x), bias.map(read));
        let x = x.values::<T>()?;
        let bias = bias.as_ref().map(|bias| bias.values::<T>()).transpose()?;
        let (n, outs, distance) = rows(&y)?;
        write(y, |y: &mut [T]| {
            let place = Place { y: Disjoint::new(y), distance, range, bias, add };
            T::multiply(x, n, matrix, level(), &place)?;
            debug_assert_eq!(place.range.len(), outs);
            Ok(())
        })
    })
}

/// Where sums go.
struct Place<'a, T> {
    y: Disjoint<'a, T>,
    /// From one row of `y` to the next.
    distance: usize,
    /// The rows of the matrix whose sums are wanted.
    range: Range<usize>,
    bias: Option<&'a [T]>,
    add: bool,
}

impl<T: Real> Place<'_, T> {
    fn panels(&self) -> Range<usize> {
        match self.range.is_empty() {
            true => 0..0,
            false => self.range.start / PANEL..self.range.end.div_ceil(PANEL),
        }
    }

    /// Takes the sums of a row of `x` with panels from this one on.
    fn take(&self, row: usize, panel: usize, sums: &[T]) {
        let first = panel * PANEL;
        let from = self.range.start.max(first);
        let sums = &sums[from - first..sums.len().min(self.range.end - first)];
        let at = from - self.range.start;
        // SAFETY: a task has panels of its own, and so these elements.
        let y = unsafe { self.y.part(row * self.distance + at, sums.len()) };
        match self.bias {
            _ if self.add => y.iter_mut().zip(sums).for_each(|(y, &sum)| *y += sum),
            Some(bias) => {
                let all = y.iter_mut().zip(sums).zip(&bias[at..]);
                all.for_each(|((y, &sum), &bias)| *y = bias + sum);
            }
            None => y.copy_from_slice(sums),
        }
    }

    /// Calls `f` with ranges of panels, on all threads where there is enough to do.
    fn share(&self, multiplications: usize, f: impl Fn(Range<usize>, Take<T>) + Sync) {
        let panels = self.panels();
        let part = |panels: Range<usize>| {
            f(panels, &mut |row, panel, sums| self.take(row, panel, sums));
        };
        if multiplications < SMALL {
            return part(panels);
        }
        let threads = rayon::current_num_threads();
        let share = panels.len().div_ceil(threads * TASKS);
        let share = share.max(LEAST.min(panels.len().div_ceil(threads)));
        let parts = (0..panels.len().div_ceil(share)).into_par_iter();
        parts.with_max_len(1).for_each(|i| {
            let start = panels.start + i * share;
            part(start..panels.end.min(start + share));
        });
    }
}

/// Numbers that matrices are multiplied in.
trait Packable: Real {
    /// `x` (n, in) with the rows of a matrix whose sums `place` takes.
    fn multiply(
        x: &[Self],
        n: usize,
        matrix: &PackedMatrix,
        level: Level,
        place: &Place<Self>,
    ) -> Result<()>;
}

/// What is multiplied, and how: `x` (n, in), rows that registers have sums for, and what its numbers are
/// turned into.
struct Product<'a, T, Turn> {
    x: &'a [T],
    n: usize,
    matrix: &'a PackedMatrix,
    at_once: usize,
    /// Numbers in an element.
    per: usize,
    turn: Turn,
}

impl<T: Real, Turn: Fn(&mut [T], &[T]) + Sync> Product<'_, T, Turn> {
    /// Calls `f` with panels, which of them are a task's, and all rows of `x`.
    fn run(&self, place: &Place<T>, f: impl Fn(Panels, Range<usize>, &Rows<T>, Take<T>) + Sync) {
        let (outs, inputs) = self.matrix.shape();
        let format = self.matrix.format();
        assert!(
            self.x.len() >= self.n * inputs && place.range.end <= outs,
            "rows of a product"
        );
        let blocks = inputs.div_ceil(format.block());
        let elements = blocks * format.block() / self.per;
        let x = Rows::new(
            self.x,
            (self.n, inputs),
            self.at_once,
            (self.per, elements),
            &self.turn,
        );
        let lines = self.matrix.lines();
        let distance = size_of_val(lines) / outs.div_ceil(PANEL).max(1);
        // SAFETY: every panel has so many blocks.
        let panels = unsafe { Panels::new(lines.as_ptr().cast(), distance, blocks) };
        place.share(self.n * place.range.len() * inputs, |range, take| {
            f(panels, range, &x, take)
        });
    }
}

impl Packable for f64 {
    fn multiply(
        x: &[Self],
        n: usize,
        matrix: &PackedMatrix,
        _: Level,
        place: &Place<Self>,
    ) -> Result<()> {
        let PackedFormat::F64 = matrix.format() else {
            return Err(mismatch(matrix.format(), DType::F64));
        };
        let product = Product {
            x,
            n,
            matrix,
            at_once: Plain::<Self>::ROWS,
            per: 1,
            turn: same::<Self>,
        };
        product.run(place, |panels, range, x, take| {
            // SAFETY: every CPU has the instructions, and the panels are f64.
            unsafe { multiply::<Plain<Self>, Full>(Full, panels, range, x, take) };
        });
        Ok(())
    }
}

impl Packable for f32 {
    fn multiply(
        x: &[Self],
        n: usize,
        matrix: &PackedMatrix,
        level: Level,
        place: &Place<Self>,
    ) -> Result<()> {
        let format = matrix.format();
        macro_rules! by {
            ($lanes:ty, $format:expr, $per:literal, $turn:expr) => {{
                let product = Product {
                    x,
                    n,
                    matrix,
                    at_once: <$lanes>::ROWS,
                    per: $per,
                    turn: $turn,
                };
                product.run(place, |panels, range, x, take| {
                    // SAFETY: `level` says that the CPU has the instructions, and the panels are of
                    // the format.
                    unsafe { multiply::<$lanes, _>($format, panels, range, x, take) };
                })
            }};
        }
        macro_rules! each_format {
            ($lanes:ty) => {
                match format {
                    PackedFormat::F32 => by!($lanes, Full, 1, same),
                    PackedFormat::Bf16 => by!($lanes, Pairs, 1, rounded),
                    PackedFormat::Q8_0 => by!($lanes, SignedBytes, 1, same),
                    PackedFormat::Nf4(values) => by!($lanes, Codes(&values), 1, same),
                    PackedFormat::F64 => return Err(mismatch(format, DType::F32)),
                }
            };
        }
        match (level, format) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512Bf16, PackedFormat::Bf16) => by!(Avx512Bf16, WholePairs, 2, pairs::<f32>),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512 | Level::Avx512Bf16, _) => each_format!(Avx512),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, _) => each_format!(Avx2),
            _ => each_format!(Plain<Self>),
        }
        Ok(())
    }
}

fn mismatch(format: PackedFormat, dtype: DType) -> Error {
    Error::failed(format!("{dtype:?} by a matrix in panels of {format:?}"))
}

#[cfg(test)]
pub(in crate::kernels) use super::level::with_level as at_level;

/// Calls `f` under each level of instructions that this CPU has, one after the other.
#[cfg(test)]
pub(in crate::kernels) fn on_each_level(f: impl Fn(Level)) {
    for level in super::level::levels_there() {
        at_level(level, || f(level));
    }
}
