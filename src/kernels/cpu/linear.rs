//! Matmuls, rows of a bias and sums of columns in host memory.

use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::elementwise::add;
use super::gemm::{gemm, gemm_by_bf16};
use super::host::{each_real, read, write};
use super::matrix::{Matrix, MatrixMut, Threads};
use super::real::Real;
use super::simd::vectorized;
use crate::error::Result;
use crate::kernels::precision::Precision;
use crate::kernels::tensor::{Dst, fresh_of, rows};

/// Elements in one unit of work: of `dy` in a partial sum of a bias's gradient, so that it does not depend
/// on threads.
const UNIT: usize = 1 << 15;

/// Writes `bias` (width) to every row of `y` (n, width).
pub fn fill_rows(y: Dst, bias: &Tensor) -> Result<()> {
    let (_, width, distance) = rows(&y)?;
    each_real!(y, T => {
        let bias = read(bias);
        let bias = bias.values::<T>()?;
        write(y, |y: &mut [T]| {
            y.par_chunks_mut(distance).for_each(|row| row[..width].copy_from_slice(bias));
            Ok(())
        })
    })
}

/// Adds the column sums of `x` (n, width) to `sums` (width).
pub fn add_column_sums(x: &Tensor, sums: Dst) -> Result<()> {
    let (_, width, distance) = rows(x)?;
    each_real!(x, T => {
        let x = read(x);
        let sum = column_sums(x.values::<T>()?, width, distance);
        write(sums, |sums: &mut [T]| {
            add(sums, &sum);
            Ok(())
        })
    })
}

/// `c = a b`, or `c += a b` where `add`, of views; `b` may be bf16 where the others are f32.
pub fn product(a: &Tensor, b: &Tensor, c: Dst, add: bool, precision: Precision) -> Result<()> {
    let stride = |x: &Tensor| (x.stride()[0], x.stride()[1]);
    let ((m, k), (_, n), strides) = (a.dims2()?, b.dims2()?, stride(&c));
    if b.dtype() == DType::BF16 {
        if precision == Precision::Full {
            return product(a, &widened(b, DType::F32)?, c, add, precision);
        }
        let (values_a, values_b) = (read(a), read(b));
        let left = Matrix::new(values_a.values::<f32>()?, (m, k), stride(a));
        let right = Matrix::new(values_b.values::<bf16>()?, (k, n), stride(b));
        return write(c, |values: &mut [f32]| {
            let c = MatrixMut::new(values, (m, n), strides);
            gemm_by_bf16(c, add, left, right, Threads::All);
            Ok(())
        });
    }
    each_real!(c, T => {
        let (values_a, values_b) = (read(a), read(b));
        let left = Matrix::new(values_a.values::<T>()?, (m, k), stride(a));
        let right = Matrix::new(values_b.values::<T>()?, (k, n), stride(b));
        write(c, |values: &mut [T]| {
            let c = MatrixMut::new(values, (m, n), strides);
            gemm(c, add, left, right, precision, Threads::All);
            Ok(())
        })
    })
}

/// A bf16 matrix, whose rows or columns have no gaps, in f32 or f64.
pub fn widened(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if !x.is_contiguous() && x.t()?.is_contiguous() {
        return Ok(widened(&x.t()?, dtype)?.t()?);
    }
    let x = x.contiguous()?;
    // SAFETY: all of it is written below.
    let mut wide = unsafe { fresh_of(x.shape(), dtype, &x)? };
    let values = read(&x);
    let values = values.values::<bf16>()?;
    each_real!(wide, T => write((&mut wide).into(), |wide: &mut [T]| {
        let units = wide.par_chunks_mut(UNIT).zip(values.par_chunks(UNIT));
        units.for_each(|(wide, values)| widen(wide, values));
        Ok(())
    }))?;
    Ok(wide)
}

vectorized! {
    pub fn widen<T: Real>(to: &mut [T], from: &[bf16]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = T::of(f64::from(f32::from_bits(u32::from(from.to_bits()) << 16)));
        }
    }
}

fn column_sums<T: Real>(values: &[T], width: usize, distance: usize) -> Vec<T> {
    let unit = (UNIT / width).max(1) * distance;
    let partial = |rows: &[T]| {
        let mut sum = vec![T::ZERO; width];
        for row in rows.chunks(distance) {
            add(&mut sum, &row[..width]);
        }
        sum
    };
    let parts: Vec<Vec<T>> = values.par_chunks(unit).map(partial).collect();
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_else(|| vec![T::ZERO; width]);
    parts.for_each(|part| add(&mut sum, &part));
    sum
}
