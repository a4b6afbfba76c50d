//! Products of matrices in host memory.
//!
//! Hides which routine computes them. In full precision that is the `gemm` crate's; products of
//! operands rounded to bf16 are ours.

use super::profile;
use super::real::Real;

/// What the operands of a product are rounded to. Sums are f32 or f64 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Not rounded.
    #[default]
    Full,
    /// bf16, for f32 operands; f64 is never rounded.
    Bf16,
}

/// A matrix to read: element (i, j) is `values[i * strides.0 + j * strides.1]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) values: &'a [T],
    pub(super) shape: (usize, usize),
    pub(super) strides: (usize, usize),
}

/// A matrix to write, laid out as [`Matrix`] is.
#[derive(Debug)]
pub(super) struct MatrixMut<'a, T> {
    pub(super) values: &'a mut [T],
    pub(super) shape: (usize, usize),
    pub(super) strides: (usize, usize),
}

fn fits(values: usize, shape: (usize, usize), strides: (usize, usize)) -> bool {
    shape.0 == 0 || shape.1 == 0 || (shape.0 - 1) * strides.0 + (shape.1 - 1) * strides.1 < values
}

impl<'a, T> Matrix<'a, T> {
    /// # Panics
    /// If an element would lie outside `values`.
    pub(super) fn new(values: &'a [T], shape: (usize, usize), strides: (usize, usize)) -> Self {
        assert!(
            fits(values.len(), shape, strides),
            "a matrix outside its memory"
        );
        Self {
            values,
            shape,
            strides,
        }
    }

    /// Rows one after the other.
    pub(super) fn rows(values: &'a [T], shape: (usize, usize)) -> Self {
        Self::new(values, shape, (shape.1, 1))
    }

    /// Transposed.
    pub(super) fn t(self) -> Self {
        Self {
            values: self.values,
            shape: (self.shape.1, self.shape.0),
            strides: (self.strides.1, self.strides.0),
        }
    }
}

impl<'a, T> MatrixMut<'a, T> {
    /// # Panics
    /// If an element would lie outside `values`, or two share a place.
    pub(super) fn new(values: &'a mut [T], shape: (usize, usize), strides: (usize, usize)) -> Self {
        assert!(
            fits(values.len(), shape, strides),
            "a matrix outside its memory"
        );
        assert!(
            strides.1 == 1 && (strides.0 >= shape.1 || shape.0 <= 1),
            "rows to write overlap"
        );
        Self {
            values,
            shape,
            strides,
        }
    }

    /// Rows one after the other.
    pub(super) fn rows(values: &'a mut [T], shape: (usize, usize)) -> Self {
        Self::new(values, shape, (shape.1, 1))
    }
}

/// Whether a product may use all threads of the pool or stays on this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    All,
    One,
}

/// `c = a b`, or `c += a b` where `add`: (m, n) from (m, k) and (k, n). The result does not depend on
/// the number of threads.
pub(super) fn gemm<T: Real>(
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

/// The product by the `gemm` crate.
pub(super) fn full<T: 'static + Copy>(
    c: MatrixMut<T>,
    add: bool,
    a: Matrix<T>,
    b: Matrix<T>,
    (zero, one): (T, T),
    threads: Threads,
) {
    let parallelism = match threads {
        Threads::All => gemm::Parallelism::Rayon(rayon::current_num_threads()),
        Threads::One => gemm::Parallelism::None,
    };
    let stride = |stride: usize| stride as isize;
    // SAFETY: every element lies inside its slice, which `new` checked; `c` is borrowed for writing,
    // so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            c.shape.0,
            c.shape.1,
            a.shape.1,
            c.values.as_mut_ptr(),
            stride(c.strides.1),
            stride(c.strides.0),
            add,
            a.values.as_ptr(),
            stride(a.strides.1),
            stride(a.strides.0),
            b.values.as_ptr(),
            stride(b.strides.1),
            stride(b.strides.0),
            if add { one } else { zero },
            one,
            false,
            false,
            false,
            parallelism,
        );
    }
}
