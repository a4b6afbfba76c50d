//! Matmuls, rows of a bias and sums of columns in host memory.

use candle_core::Tensor;
use rayon::prelude::*;

use super::elementwise::add;
use super::gemm::gemm;
use super::host::{each_real, read, write};
use super::matrix::{Matrix, MatrixMut, Threads};
use super::real::Real;
use crate::error::Result;
use crate::kernels::precision::Precision;
use crate::kernels::tensor::{Dst, rows};

/// Elements of `dy` in one partial sum of a bias's gradient, so that it does not depend on threads.
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

/// `c = a b`, or `c += a b` where `add`, of views.
pub fn product(a: &Tensor, b: &Tensor, c: Dst, add: bool, precision: Precision) -> Result<()> {
    let stride = |x: &Tensor| (x.stride()[0], x.stride()[1]);
    let ((m, k), (_, n), strides) = (a.dims2()?, b.dims2()?, stride(&c));
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
