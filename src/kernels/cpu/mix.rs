//! A weighted mean of two tensors in host memory.

use candle_core::Tensor;
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::vectorized;
use crate::error::Result;
use crate::kernels::tensor::Dst;

/// Elements per unit of parallel work.
const UNIT: usize = 1 << 14;

pub fn mix(destination: Dst, other: &Tensor, share: f64) -> Result<()> {
    each_real!(destination, T => {
        let other = read(other);
        let other = other.values::<T>()?;
        let shares = (T::of(share), T::of(1.0 - share));
        write(destination, |own: &mut [T]| {
            let units = own.par_chunks_mut(UNIT).zip(other.par_chunks(UNIT));
            units.for_each(|(own, other)| mix_unit(own, other, shares));
            Ok(())
        })
    })
}

vectorized! {
    fn mix_unit<T: Real>(own: &mut [T], other: &[T], shares: (T, T)) {
        for (own, other) in own.iter_mut().zip(other) {
            *own = *other * shares.0 + *own * shares.1;
        }
    }
}
