//! What the machine could do: the best rate of matmuls and of reads from memory, measured.

use std::time::{Duration, Instant};

use candle_core::Tensor;
use rayon::prelude::*;

use super::device::{synchronize, upload};
use super::ops::linear::linear_into;
use super::precision::Precision;
use crate::error::Result;

/// The floating-point operations per second of matmuls of two square matrices, one after the other
/// for half a second, on the device and in the dtype of `like`; and their side.
pub fn product_rate(like: &Tensor, precision: Precision) -> Result<(f64, usize)> {
    // A GPU needs more to be busy.
    let n = if like.device().is_cpu() { 1024 } else { 8192 };
    let matrix = || -> Result<Tensor> {
        let mut x = Tensor::zeros((n, n), like.dtype(), like.device())?;
        upload(&vec![0.25; n * n], &mut x)?;
        Ok(x)
    };
    let (a, b, mut c) = (matrix()?, matrix()?, matrix()?);
    let mut product = || linear_into(&a, &b, None, &mut c, precision);
    product()?;
    synchronize()?;
    let (start, mut products) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(500) {
        product()?;
        synchronize()?;
        products += 1;
    }
    let operations = 2.0 * (n as f64).powi(3) * f64::from(products);
    Ok((operations / start.elapsed().as_secs_f64(), n))
}

/// Bytes of a plain read.
const READ: usize = 256 << 20;

/// The bytes per second at which all threads together read memory that no cache holds: the best of some
/// passes over 256 MiB.
pub fn read_rate() -> f64 {
    let memory = vec![1u64; READ / size_of::<u64>()];
    let pass = || {
        let start = Instant::now();
        let parts = memory.par_chunks(1 << 16);
        let sum = parts.map(|part| part.iter().fold(0, |a: u64, b| a.wrapping_add(*b)));
        std::hint::black_box(sum.reduce(|| 0, u64::wrapping_add));
        start.elapsed().as_secs_f64()
    };
    let best = (0..8).map(|_| pass()).fold(f64::INFINITY, f64::min);
    READ as f64 / best
}
