//! Matmuls in host memory.
//!
//! Hides which routine computes them. In full precision that is the `gemm` crate's; matmuls of
//! operands rounded to bf16 are ours.

use super::matrix::{Matrix, MatrixMut, Threads};
use super::real::Real;
use crate::kernels::precision::Precision;
use crate::kernels::profile;

/// `c = a b`, or `c += a b` where `add`: (m, n) from (m, k) and (k, n). The result does not depend on
/// the number of threads.
pub fn gemm<T: Real>(
    c: MatrixMut<T>,
    add: bool,
    a: Matrix<T>,
    b: Matrix<T>,
    precision: Precision,
    threads: Threads,
) {
    let ((m, n), k) = (c.shape, a.shape.1);
    assert!(
        a.shape.0 == m && b.shape == (k, n),
        "a product of {:?} and {:?} into {:?}",
        a.shape,
        b.shape,
        c.shape
    );
    if m == 0 || n == 0 {
        return;
    }
    profile::product(m, n, k);
    T::product(c, add, a, b, precision, threads);
}
