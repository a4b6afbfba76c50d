//! The product on any CPU: rounded copies of parts of the operands, multiplied in f32.

use std::ops::Range;

use half::bf16;

use super::each;
use super::scratch::{self, OWN, SHARED};
use crate::kernels::cpu::full::full;
use crate::kernels::cpu::matrix::{Matrix, MatrixMut, Threads};

/// The most rows, columns and elements of k multiplied at a time: copies are 4 MiB.
const BLOCK: usize = 1024;

/// As [`super::gemm`], for k > 0.
pub(super) fn gemm(c: MatrixMut<f32>, add: bool, a: Matrix<f32>, b: Matrix<f32>, threads: Threads) {
    let ((m, n), stride) = (c.shape, c.strides.0);
    for k in blocks(a.shape.1) {
        for columns in blocks(n) {
            round(&SHARED, b, k.clone(), columns.clone(), threads, |b| {
                for rows in blocks(m) {
                    round(&OWN, a, rows.clone(), k.clone(), threads, |a| {
                        let values = &mut c.values[rows.start * stride + columns.start..];
                        let c = MatrixMut::new(values, (rows.len(), columns.len()), (stride, 1));
                        full(c, add || k.start > 0, a, b, (0.0, 1.0), threads);
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

/// Calls `f` with a rounded copy of a part of a matrix, which lies in memory as the matrix does.
fn round<R>(
    kept: &'static scratch::Kept,
    from: Matrix<f32>,
    rows: Range<usize>,
    columns: Range<usize>,
    threads: Threads,
    f: impl FnOnce(Matrix<f32>) -> R,
) -> R {
    let turned = from.strides.0 < from.strides.1;
    let (from, rows, columns) = match turned {
        true => (from.t(), columns, rows),
        false => (from, rows, columns),
    };
    scratch::with(kept, rows.len() * columns.len(), |copy| {
        let copies = copy.chunks_mut(columns.len()).zip(rows.clone()).collect();
        each(threads, copies, |(copy, row)| {
            for (copy, column) in copy.iter_mut().zip(columns.clone()) {
                let x = from.values[row * from.strides.0 + column * from.strides.1];
                *copy = bf16::from_f32(x).to_f32();
            }
        });
        let copy = Matrix::rows(copy, (rows.len(), columns.len()));
        f(if turned { copy.t() } else { copy })
    })
}
