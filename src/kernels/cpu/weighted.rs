//! Row scaling and row-wise dot products, in host memory.

use candle_core::Tensor;
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use crate::error::Result;
use crate::kernels::tensor::Dst;

/// Partial sums of a dot product, so that they need not wait for each other.
const LANES: usize = 8;

pub fn weigh(x: Dst, weights: &[f64]) -> Result<()> {
    let (_, width) = x.dims2()?;
    each_real!(x, T => write(x, |x: &mut [T]| {
        x.par_chunks_exact_mut(width.max(1)).zip(weights).for_each(|(row, &weight)| {
            let weight = T::of(weight);
            row.iter_mut().for_each(|x| *x *= weight);
        });
        Ok(())
    }))
}

pub fn dots(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let (rows, width) = a.dims2()?;
    each_real!(a, T => {
        let (a, b) = (read(a), read(b));
        let (a, b) = (a.values::<T>()?, b.values::<T>()?);
        let row = |row: usize| dot(&a[row * width..][..width], &b[row * width..][..width]);
        Ok((0..rows).into_par_iter().map(row).collect())
    })
}

fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    let mut lanes = [T::ZERO; LANES];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += *a * *b;
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *lane += *a * *b;
    }
    lanes.into_iter().map(Real::wide).sum()
}
