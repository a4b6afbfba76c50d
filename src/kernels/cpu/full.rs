//! Matmuls in full precision: those of the `gemm` crate.

use super::matrix::{Matrix, MatrixMut, Threads};

/// The matmul by the `gemm` crate.
pub fn full<T: 'static + Copy>(
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
