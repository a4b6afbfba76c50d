//! Dropout in host memory.

use candle_core::Tensor;
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::vectorized;
use crate::error::Result;
use crate::kernels::operands::dropout::Dropout;
use crate::kernels::tensor::Dst;

/// `y = x` with dropped elements, or `y += ` that where `add`.
pub fn apply(x: &Tensor, dropout: Dropout, y: Dst, add: bool) -> Result<()> {
    let (_, width) = x.dims2()?;
    let keys = read(dropout.keys.tensor());
    let keys = keys.ids()?;
    let (threshold, [first, second]) = (dropout.threshold(), dropout.seeds());
    each_real!(x, T => {
        let x = read(x);
        let (x, factor) = (x.values::<T>()?, T::of(dropout.factor()));
        write(y, |y: &mut [T]| {
            let rows = y.par_chunks_exact_mut(width.max(1)).zip(x.par_chunks_exact(width.max(1)));
            rows.zip(keys).for_each(|((y, x), &key)| {
                row(x, y, mixed(key.wrapping_add(first)) ^ second, threshold, factor, add);
            });
            Ok(())
        })
    })
}

vectorized! {
    fn row<T: Real>(x: &[T], y: &mut [T], state: u32, threshold: u32, factor: T, add: bool) {
        for (column, (y, &x)) in y.iter_mut().zip(x).enumerate() {
            let hash = mixed(state.wrapping_add((column as u32).wrapping_mul(0x9e37_79b9)));
            let x = if hash < threshold { T::ZERO } else { x * factor };
            *y = if add { *y + x } else { x };
        }
    }
}

/// A hash of 32 bits: the finalizer of MurmurHash3, by Austin Appleby.
#[inline(always)]
fn mixed(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}
