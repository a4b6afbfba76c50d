//! The product on any processor: rounded copies of parts of the operands, multiplied in f32.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::scratch::{self, OWN, SHARED};
use crate::kernels::gemm::{Matrix, MatrixMut, Threads, full};

/// The most rows, columns and elements of k multiplied at a time: copies are 4 MiB.
const BLOCK: usize = 1024;

/// As [`super::gemm`], for k > 0.
pub(super) fn gemm(c: MatrixMut<f32>, add: bool, a: Matrix<f32>, b: Matrix<f32>, threads: Threads) {
    let ((m, n), stride) = (c.shape, c.strides.0);
    for k in blocks(a.shape.1) {
        for columns in blocks(n) {
            round(&SHARED, b.t(), columns.clone(), k.clone(), threads, |b| {
                for rows in blocks(m) {
                    round(&OWN, a, rows.clone(), k.clone(), threads, |a| {
                        let values = &mut c.values[rows.start * stride + columns.start..];
                        let c = MatrixMut::new(values, (rows.len(), columns.len()), (stride, 1));
                        full(c, add || k.start > 0, a, b.t(), (0.0, 1.0), threads);
                    });
                }
            });
        }
    }
}

fn blocks(len: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..len).step_by(BLOCK);
    starts.map(move |start| start..len.min(start + BLOCK))
}

/// Calls `f` with a rounded copy of some of the vectors of `from` (vectors, k).
fn round<R>(
    kept: &'static scratch::Kept,
    from: Matrix<f32>,
    vectors: Range<usize>,
    k: Range<usize>,
    threads: Threads,
    f: impl FnOnce(Matrix<f32>) -> R,
) -> R {
    scratch::with(kept, vectors.len() * k.len(), |copy| {
        let row = |(vector, copy): (usize, &mut [f32])| {
            let start = (vectors.start + vector) * from.strides.0;
            for (copy, k) in copy.iter_mut().zip(k.clone()) {
                *copy = bf16::from_f32(from.values[start + k * from.strides.1]).to_f32();
            }
        };
        match threads {
            Threads::All => copy.par_chunks_mut(k.len()).enumerate().for_each(row),
            Threads::One => copy.chunks_mut(k.len()).enumerate().for_each(row),
        }
        f(Matrix::rows(copy, (vectors.len(), k.len())))
    })
}
