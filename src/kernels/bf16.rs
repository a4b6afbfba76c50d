//! Products of matrices whose elements are rounded to bf16, with sums in f32.

use super::gemm::{Matrix, MatrixMut, Threads, full};

/// `c = a b`, or `c += a b` where `add`.
pub(super) fn gemm(c: MatrixMut<f32>, add: bool, a: Matrix<f32>, b: Matrix<f32>, threads: Threads) {
    full(c, add, a, b, (0.0, 1.0), threads);
}
