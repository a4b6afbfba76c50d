//! Matmuls in host memory.
//!
//! Hides which routine computes them. In full precision that is the `gemm` crate's; gradients of weights are
//! ours, and so are all matmuls of operands rounded to bf16.

use half::bf16;

use super::full::full;
use super::level::{Level, level};
use super::matmul::{Operand, multiply};
use super::matrix::{Matrix, MatrixMut, Threads};
use super::real::Real;
use crate::kernels::precision::Precision;
use crate::kernels::profile;

/// `c = a b`, or `c += a b` where `add`: (m, n) from (m, k) and (k, n). The result does not depend on
/// the number of threads.
pub fn gemm<T: Multiply>(
    c: MatrixMut<T>,
    add: bool,
    a: Matrix<T>,
    b: Matrix<T>,
    precision: Precision,
    threads: Threads,
) {
    if begins(c.shape, a.shape, b.shape) {
        T::product(c, add, a, b, precision, threads);
    }
}

/// Numbers that matmuls are of.
pub trait Multiply: Real {
    /// See [`gemm`]; nothing is empty but `k`.
    fn product(
        c: MatrixMut<Self>,
        add: bool,
        a: Matrix<Self>,
        b: Matrix<Self>,
        precision: Precision,
        threads: Threads,
    );
}

impl Multiply for f32 {
    fn product(
        c: MatrixMut<Self>,
        add: bool,
        a: Matrix<Self>,
        b: Matrix<Self>,
        precision: Precision,
        threads: Threads,
    ) {
        if precision == Precision::Full && !is_gradient(a, b) {
            return full(c, add, a, b, (0.0, 1.0), threads);
        }
        multiply(c, add, Operand::F32(a), Operand::F32(b), precision, threads);
    }
}

/// Whether it is as a weight's gradient is computed, `dy^T x`: sums over tokens, with neither operand's elements
/// of a sum side by side.
///
/// *Why*: of these the crate is slower, by a tenth and more where the weight is a vocabulary's. The heads of
/// attention are too narrow to gain.
fn is_gradient(a: Matrix<f32>, b: Matrix<f32>) -> bool {
    let (m, n) = (a.shape.0, b.shape.1);
    a.strides.0 == 1 && a.strides.1 != 1 && m.min(n) > NARROW && level() != Level::Portable
}

/// The widest head of attention.
const NARROW: usize = 256;

impl Multiply for f64 {
    fn product(
        c: MatrixMut<Self>,
        add: bool,
        a: Matrix<Self>,
        b: Matrix<Self>,
        _: Precision,
        threads: Threads,
    ) {
        full(c, add, a, b, (0.0, 1.0), threads);
    }
}

/// As [`gemm`] in bf16, by a matrix that is stored so.
pub fn gemm_by_bf16(
    c: MatrixMut<f32>,
    add: bool,
    a: Matrix<f32>,
    b: Matrix<bf16>,
    threads: Threads,
) {
    if begins(c.shape, a.shape, b.shape) {
        let (a, b) = (Operand::F32(a), Operand::Bf16(b));
        multiply(c, add, a, b, Precision::Bf16, threads);
    }
}

/// Whether there is anything to compute.
///
/// # Panics
/// If the shapes do not fit.
fn begins((m, n): (usize, usize), a: (usize, usize), b: (usize, usize)) -> bool {
    let k = a.1;
    assert!(
        a.0 == m && b == (k, n),
        "a product of {a:?} and {b:?} into {:?}",
        (m, n)
    );
    if m == 0 || n == 0 {
        return false;
    }
    profile::product(m, n, k);
    true
}
