//! Rotary position embedding in host memory.

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::vectorized;
use crate::error::Result;
use crate::kernels::tensor::Dst;

/// Tokens per unit of parallel work.
const UNIT: usize = 32;

/// Rotates by the angles, or where `direction` is -1 back.
pub fn turn(x: Dst, cos: &Tensor, sin: &Tensor, direction: f64) -> Result<()> {
    let (_, heads, _) = x.dims3()?;
    let strides = (x.stride()[0], x.stride()[1]);
    let half = cos.dim(D::Minus1)?;
    each_real!(x, T => {
        let (cos, sin) = (read(cos), read(sin));
        let (cos, sin) = (cos.values::<T>()?, sin.values::<T>()?);
        write(x, |values: &mut [T]| {
            let angles = cos.par_chunks(UNIT * half).zip(sin.par_chunks(UNIT * half));
            let units = values.par_chunks_mut(UNIT * strides.0).zip(angles);
            units.for_each(|(values, (cos, sin))| {
                turn_unit(values, cos, sin, half, heads, strides, T::of(direction));
            });
            Ok(())
        })
    })
}

vectorized! {
    fn turn_unit<T: Real>(
        values: &mut [T],
        cos: &[T],
        sin: &[T],
        half: usize,
        heads: usize,
        strides: (usize, usize),
        direction: T,
    ) {
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (token, (cos, sin)) in values.chunks_mut(strides.0).zip(angles) {
            for head in 0..heads {
                let (first, second) = token[head * strides.1..][..2 * half].split_at_mut(half);
                let pairs = first.iter_mut().zip(second).zip(cos.iter().zip(sin));
                for ((a, b), (&cos, &sin)) in pairs {
                    let (x, y, sin) = (*a, *b, sin * direction);
                    *a = x * cos - y * sin;
                    *b = y * cos + x * sin;
                }
            }
        }
    }
}
