//! Products of matrices whose elements are rounded to bf16, with sums in f32.
//!
//! Hides how the rounded operands are laid out and which instructions multiply them. An element is
//! rounded to the nearest bf16 (ties to even) as it is packed, so no rounded copy of an operand
//! exists as a whole. Products are exact; a sum runs over blocks of k in their order, whatever the
//! number of threads.
//!
//! *Why*: bf16 halves what a product reads from the caches and doubles what a CPU with
//! AVX512_BF16 multiplies per cycle. Other CPUs get the same numbers, up to the rounding of
//! f32 sums, from the f32 product; they also keep numbers below 2^-126, which those instructions take
//! for zero.

mod portable;
mod scratch;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
mod fast;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod tile;

use rayon::prelude::*;

use super::matrix::{Matrix, MatrixMut, Threads};

/// `c = a b`, or `c += a b` where `add`: (m, n) from (m, k) and (k, n). Rows of `c` have no gaps.
pub(super) fn gemm(c: MatrixMut<f32>, add: bool, a: Matrix<f32>, b: Matrix<f32>, threads: Threads) {
    let ((m, n), k) = (c.shape, a.shape.1);
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
    #[cfg(target_arch = "x86_64")]
    if fast::available() {
        return fast::gemm(c, add, a, b, threads);
    }
    portable::gemm(c, add, a, b, threads);
}

/// Calls `f` with each item, on all threads of the pool or in order on this one.
fn each<T: Send>(threads: Threads, items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    match threads {
        Threads::All if items.len() > 1 => items.into_par_iter().with_max_len(1).for_each(f),
        _ => items.into_iter().for_each(f),
    }
}
