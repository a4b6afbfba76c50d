//! Copies, sums and products in place, and clearing in host memory.

use candle_core::Tensor;
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::vectorized;
use crate::error::Result;
use crate::kernels::tensor::{Dst, rows};

/// Elements per unit of parallel work.
const UNIT: usize = 1 << 14;

pub fn add_assign(destination: Dst, source: &Tensor) -> Result<()> {
    each_real!(destination, T => {
        let source = read(source);
        let source = source.values::<T>()?;
        write(destination, |sum: &mut [T]| {
            let units = sum.par_chunks_mut(UNIT).zip(source.par_chunks(UNIT));
            units.for_each(|(sum, source)| add(sum, source));
            Ok(())
        })
    })
}

pub fn clear(x: Dst) -> Result<()> {
    each_real!(x, T => write(x, |x: &mut [T]| {
        x.par_chunks_mut(UNIT).for_each(|unit| unit.fill(T::ZERO));
        Ok(())
    }))
}

pub fn scale(x: Dst, factor: f64) -> Result<()> {
    each_real!(x, T => write(x, |x: &mut [T]| {
        x.par_chunks_mut(UNIT).for_each(|unit| multiply(unit, T::of(factor)));
        Ok(())
    }))
}

pub fn copy(x: &Tensor) -> Result<Tensor> {
    Ok(x.force_contiguous()?)
}

pub fn assign(destination: Dst, source: &Tensor) -> Result<()> {
    let (count, rows, width) = destination.dims3()?;
    let (matrix, row) = (destination.stride()[0], destination.stride()[1]);
    each_real!(destination, T => {
        let source = read(source);
        let source = source.values::<T>()?;
        write(destination, |values: &mut [T]| {
            // The distance to a second matrix says nothing where there is none.
            let distance = if count == 1 { values.len() } else { matrix };
            let units = values.par_chunks_mut(distance.max(1)).zip(source.par_chunks((rows * width).max(1)));
            units.for_each(|(values, source)| {
                for (at, source) in source.chunks_exact(width).enumerate() {
                    values[at * row..][..width].copy_from_slice(source);
                }
            });
            Ok(())
        })
    })
}

pub fn residual(x: &Tensor, biases: &[&Tensor], y: Dst) -> Result<()> {
    let (_, width, _) = rows(x)?;
    let x = x.contiguous()?;
    each_real!(x, T => {
        let total = total::<T>(biases, width)?;
        let x = read(&x);
        let x = x.values::<T>()?;
        write(y, |y: &mut [T]| {
            let rows = (UNIT / width).max(1) * width;
            y.par_chunks_mut(rows).zip(x.par_chunks(rows)).for_each(|(y, x)| {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    sum(y, x, &total);
                }
            });
            Ok(())
        })
    })
}

fn total<T: Real>(biases: &[&Tensor], width: usize) -> Result<Vec<T>> {
    let mut total = vec![T::ZERO; width];
    for bias in biases {
        let bias = read(bias);
        add(&mut total, bias.values::<T>()?);
    }
    Ok(total)
}

vectorized! {
    pub(super) fn add<T: Real>(sum: &mut [T], x: &[T]) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += *x;
        }
    }
}

vectorized! {
    fn multiply<T: Real>(x: &mut [T], factor: T) {
        for x in x {
            *x *= factor;
        }
    }
}

vectorized! {
    fn sum<T: Real>(y: &mut [T], a: &[T], b: &[T]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = *a + *b;
        }
    }
}
