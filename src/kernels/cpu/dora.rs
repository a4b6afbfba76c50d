//! Rows of an adapted weight scaled to learned magnitudes, in host memory.

use candle_core::Tensor;
use rayon::prelude::*;

use super::elementwise::add;
use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::{sum, vectorized};
use crate::error::Result;
use crate::kernels::tensor::{Dst, rows};

/// Elements in one partial sum, so that it does not depend on threads.
const UNIT: usize = 1 << 15;

pub fn factors(
    weight: &Tensor,
    (a, b, scale): (&Tensor, &Tensor, f64),
    magnitude: &Tensor,
    [own, to_norm]: [Dst; 2],
) -> Result<()> {
    let ((_, input), (rank, _)) = (weight.dims2()?, a.dims2()?);
    each_real!(magnitude, T => {
        let (weight, a, b) = (read(weight), read(a), read(b));
        let (weight, a, b) = (weight.values::<T>()?, a.values::<T>()?, b.values::<T>()?);
        let row = |row: usize| {
            let mut values = weight[row * input..][..input].to_vec();
            for (a, &b) in a.chunks_exact(input.max(1)).zip(&b[row * rank..][..rank]) {
                add_multiple(&mut values, a, b * T::of(scale));
            }
            squares(&values).root()
        };
        let norms: Vec<T> = (0..weight.len() / input.max(1)).into_par_iter().map(row).collect();
        let magnitude = read(magnitude);
        let magnitude = magnitude.values::<T>()?;
        write(own, |own: &mut [T]| {
            for ((own, &m), &norm) in own.iter_mut().zip(magnitude).zip(&norms) {
                *own = if norm > T::ZERO { m / norm } else { T::ZERO };
            }
            Ok(())
        })?;
        write(to_norm, |to: &mut [T]| {
            to.copy_from_slice(&norms);
            Ok(())
        })
    })
}

pub fn add_scaled(x: &Tensor, f: &Tensor, y: Dst) -> Result<()> {
    let ((_, width, from), (_, _, to)) = (rows(x)?, rows(&y)?);
    each_real!(x, T => {
        let (x, f) = (read(x), read(f));
        let (x, f) = (x.values::<T>()?, f.values::<T>()?);
        write(y, |y: &mut [T]| {
            y.par_chunks_mut(to.max(1)).zip(x.par_chunks(from.max(1))).for_each(|(y, x)| {
                for ((y, &x), &f) in y[..width].iter_mut().zip(x).zip(f) {
                    *y += x * f;
                }
            });
            Ok(())
        })
    })
}

pub fn add_dots(a: &Tensor, b: &Tensor, norm: &Tensor, sums: Dst) -> Result<()> {
    let ((_, width, of_a), (_, _, of_b)) = (rows(a)?, rows(b)?);
    each_real!(a, T => {
        let (a, b, norm) = (read(a), read(b), read(norm));
        let (a, b, norm) = (a.values::<T>()?, b.values::<T>()?, norm.values::<T>()?);
        let unit = (UNIT / width.max(1)).max(1);
        let partial = |(a, b): (&[T], &[T])| {
            let mut sums = vec![T::ZERO; width];
            for (a, b) in a.chunks(of_a.max(1)).zip(b.chunks(of_b.max(1))) {
                for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                    *sum += a * b;
                }
            }
            sums
        };
        let parts = a.par_chunks(unit * of_a.max(1)).zip(b.par_chunks(unit * of_b.max(1)));
        let parts: Vec<Vec<T>> = parts.map(partial).collect();
        let mut total = vec![T::ZERO; width];
        parts.iter().for_each(|part| add(&mut total, part));
        for (total, &norm) in total.iter_mut().zip(norm) {
            *total = if norm > T::ZERO { *total / norm } else { T::ZERO };
        }
        write(sums, |sums: &mut [T]| {
            add(sums, &total);
            Ok(())
        })
    })
}

vectorized! {
    fn add_multiple<T: Real>(to: &mut [T], x: &[T], factor: T) {
        for (to, &x) in to.iter_mut().zip(x) {
            *to += x * factor;
        }
    }
}

vectorized! {
    fn squares<T: Real>(x: &[T]) -> T {
        sum(x, x, |a, b| a * b)
    }
}
