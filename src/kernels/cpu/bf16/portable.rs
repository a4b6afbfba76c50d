//! The product on any CPU: rounded copies of parts of the operands, multiplied in f32.

use std::ops::Range;

use half::bf16;

use super::scratch::{self, OWN, SHARED};
use super::{Operand, each};
use crate::kernels::cpu::full::full;
use crate::kernels::cpu::matrix::{Matrix, MatrixMut, Threads};

/// The most rows, columns and elements of k multiplied at a time: copies are 4 MiB.
const BLOCK: usize = 1024;

/// As [`super::gemm`], for k > 0.
pub(super) fn gemm(c: MatrixMut<f32>, add: bool, a: Operand, b: Operand, threads: Threads) {
    let ((m, n), stride) = (c.shape, c.strides.0);
    for k in blocks(a.shape().1) {
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
    from: Operand,
    rows: Range<usize>,
    columns: Range<usize>,
    threads: Threads,
    f: impl FnOnce(Matrix<f32>) -> R,
) -> R {
    scratch::with(kept, rows.len() * columns.len(), |into| {
        let part = (rows, columns);
        f(match from {
            Operand::F32(x) => copy(into, x, part, threads, |x| bf16::from_f32(x).to_f32()),
            Operand::Bf16(x) => copy(into, x, part, threads, bf16::to_f32),
        })
    })
}

/// Copies rows and columns of a matrix to all of `into`.
fn copy<'a, T: Copy + Sync>(
    into: &'a mut [f32],
    from: Matrix<T>,
    (rows, columns): (Range<usize>, Range<usize>),
    threads: Threads,
    wide: impl Fn(T) -> f32 + Sync,
) -> Matrix<'a, f32> {
    let turned = from.strides.0 < from.strides.1;
    let (from, rows, columns) = match turned {
        true => (from.t(), columns, rows),
        false => (from, rows, columns),
    };
    let lines = into.chunks_mut(columns.len()).zip(rows.clone()).collect();
    each(threads, lines, |(line, row)| {
        for (to, column) in line.iter_mut().zip(columns.clone()) {
            *to = wide(from.values[row * from.strides.0 + column * from.strides.1]);
        }
    });
    let copy = Matrix::rows(into, (rows.len(), columns.len()));
    if turned { copy.t() } else { copy }
}
