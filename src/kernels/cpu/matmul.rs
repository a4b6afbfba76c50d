//! Matmuls in f32, of operands as they are or rounded to bf16.
//!
//! Hides how operands are laid out and which instructions multiply them. An element is brought to the precision
//! of the product as it is packed, bf16 by rounding to the nearest (ties to even), so no converted copy of an
//! operand exists as a whole. Products of bf16 are exact; a sum runs over blocks of k in their order, whatever
//! the number of threads.
//!
//! *Why*: AVX512_BF16 reads half as much from the caches as f32 does and, on some CPUs, multiplies twice as many
//! numbers in a cycle. All others compute the same products, up to the rounding of f32 sums, by instructions of
//! f32; they also keep numbers below 2^-126, which AVX512_BF16 takes for zero.

mod blocks;
mod kernel;
mod line;
mod pack;
mod scratch;
#[cfg(test)]
mod tests;

use half::bf16;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::level::Level;
use super::level::level;
use super::matrix::{Matrix, MatrixMut, Threads};
use crate::kernels::precision::Precision;

/// An operand as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    F32(Matrix<'a, f32>),
    Bf16(Matrix<'a, bf16>),
}

impl Operand<'_> {
    fn shape(self) -> (usize, usize) {
        match self {
            Self::F32(x) => x.shape,
            Self::Bf16(x) => x.shape,
        }
    }

    /// Transposed.
    fn t(self) -> Self {
        match self {
            Self::F32(x) => Self::F32(x.t()),
            Self::Bf16(x) => Self::Bf16(x.t()),
        }
    }
}

/// `c = a b`, or `c += a b` where `add`: (m, n) from (m, k) and (k, n). Rows of `c` have no gaps.
pub(super) fn multiply(
    c: MatrixMut<f32>,
    add: bool,
    a: Operand,
    b: Operand,
    precision: Precision,
    threads: Threads,
) {
    let ((m, n), k) = (c.shape, a.shape().1);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !add {
            for i in 0..m {
                c.values[i * c.strides.0..][..n].fill(0.0);
            }
        }
        return;
    }
    let by = match (level(), precision) {
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512Bf16, Precision::Bf16) => blocks::gemm::<kernel::Avx512Bf16>,
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512, Precision::Bf16) => blocks::gemm::<kernel::Avx512<true>>,
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512 | Level::Avx512Bf16, Precision::Full) => {
            blocks::gemm::<kernel::Avx512<false>>
        }
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2, Precision::Bf16) => blocks::gemm::<kernel::Avx2<true>>,
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2, Precision::Full) => blocks::gemm::<kernel::Avx2<false>>,
        (_, Precision::Bf16) => blocks::gemm::<kernel::Portable<true>>,
        (_, Precision::Full) => blocks::gemm::<kernel::Portable<false>>,
    };
    // SAFETY: `level` says that the CPU has the instructions.
    unsafe { by(c, add, a, b, threads) };
}

/// Calls `f` with each item, on all threads of the pool or in order on this one.
fn each<T: Send>(threads: Threads, items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    match threads {
        Threads::All if items.len() > 1 => items.into_par_iter().with_max_len(1).for_each(f),
        _ => items.into_iter().for_each(f),
    }
}
