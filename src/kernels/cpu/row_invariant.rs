//! `y = x W^T + b` for few rows in host memory, each row independent of the others.
//!
//! Hides which instructions add up.
//!
//! *Why*: a step of decoding reads every weight once for a few rows and does little else, so its bound
//! is memory, and a matmul that first lays its operands out anew reads them twice. Each element is
//! one sum in one order: no bit of a row depends on the rows beside it, or on threads.

#[cfg(target_arch = "x86_64")]
mod fast;

use std::ops::Range;

use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::host::{Disjoint, each_real, read, write};
use super::real::Real;
use super::simd::{sum, vectorized};
use crate::error::Result;
use crate::kernels::tensor::{Dst, rows};

/// Rows of a weight that are multiplied at once.
const PANEL: usize = 16;

/// Multiplications below which a second thread costs more than it gains.
const SMALL: usize = 1 << 17;

/// Parts of a weight for each thread, so that none waits long for another.
const TASKS: usize = 8;

/// An f32 weight in bf16, each element rounded to the nearest.
pub fn rounded(weight: &Tensor) -> Result<Tensor> {
    let values = read(weight);
    let values: Vec<bf16> = values
        .values::<f32>()?
        .par_iter()
        .map(|&x| bf16::from_f32(x))
        .collect();
    Ok(Tensor::from_vec(values, weight.shape(), weight.device())?)
}

/// `y = x W^T + bias`, or `y += x W^T` where `add`.
pub fn product(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: Dst,
    add: bool,
) -> Result<()> {
    let ((n, k), _) = (x.dims2()?, weight.dims2()?);
    if weight.dtype() == DType::BF16 {
        let (x, weight) = (read(x), read(weight));
        let weight = weight.values::<bf16>()?;
        let x = x.values::<f32>()?;
        #[cfg(target_arch = "x86_64")]
        if fast::has_bf16() {
            let x = fast::turn_pairs(x, (n, k));
            return run(y, bias, add, k, |outs, f| {
                fast::pairs(&x, weight, (n, k), outs, f)
            });
        }
        let wide: Vec<f32> = x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        return run(y, bias, add, k, |outs, f: Take<f32>| {
            for out in outs {
                let weight: Vec<f32> = weight[out * k..][..k].iter().map(|w| w.to_f32()).collect();
                each_row(&wide, &weight, n, out, f);
            }
        });
    }
    #[cfg(target_arch = "x86_64")]
    if x.dtype() == DType::F32 && fast::has_full() {
        let (x, weight) = (read(x), read(weight));
        let x = fast::turn(x.values()?, (n, k));
        let weight = weight.values()?;
        return run(y, bias, add, k, |outs, f| {
            fast::full(&x, weight, (n, k), outs, f)
        });
    }
    each_real!(x, T => {
        let (x, weight) = (read(x), read(weight));
        let (x, weight) = (x.values::<T>()?, weight.values::<T>()?);
        run(y, bias, add, k, |outs, f: Take<T>| {
            outs.for_each(|out| each_row(x, &weight[out * k..][..k], n, out, f));
        })
    })
}

/// Takes the sums of a row from an element of it on.
type Take<'a, T> = &'a mut dyn FnMut(usize, usize, &[T]);

/// Shares the elements of `y` among threads; `sums` gives those of a range of weights' rows.
fn run<T: Real>(
    y: Dst,
    bias: Option<&Tensor>,
    add: bool,
    k: usize,
    sums: impl Fn(Range<usize>, Take<T>) + Sync,
) -> Result<()> {
    let (n, outs, distance) = rows(&y)?;
    let bias = bias.map(read);
    let bias = bias.as_ref().map(|bias| bias.values::<T>()).transpose()?;
    write(y, |y: &mut [T]| {
        let y = Disjoint::new(y);
        let part = |outs: Range<usize>| {
            sums(outs, &mut |row, at, sums| {
                // SAFETY: a task has weights' rows of its own, and so these elements.
                let y = unsafe { y.part(row * distance + at, sums.len()) };
                match bias {
                    _ if add => y.iter_mut().zip(sums).for_each(|(y, &sum)| *y += sum),
                    Some(bias) => {
                        let bias = &bias[at..][..sums.len()];
                        let all = y.iter_mut().zip(sums).zip(bias);
                        all.for_each(|((y, &sum), &bias)| *y = bias + sum);
                    }
                    None => y.copy_from_slice(sums),
                }
            });
        };
        if n * outs * k < SMALL {
            part(0..outs);
            return Ok(());
        }
        let share = outs.div_ceil(rayon::current_num_threads() * TASKS);
        let share = share.next_multiple_of(PANEL);
        let parts = (0..outs.div_ceil(share)).into_par_iter().with_max_len(1);
        parts.for_each(|i| part(i * share..outs.min((i + 1) * share)));
        Ok(())
    })
}

/// Every row of `x` with one row of the weight.
fn each_row<T: Real>(x: &[T], weight: &[T], n: usize, out: usize, f: Take<T>) {
    for row in 0..n {
        f(
            row,
            out,
            &[dot(&x[row * weight.len()..][..weight.len()], weight)],
        );
    }
}

vectorized! {
    fn dot<T: Real>(x: &[T], weight: &[T]) -> T {
        sum(x, weight, |x, w| x * w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::row_invariant;
    use crate::kernels::testing::variable;

    /// The loops for other CPUs give the same, up to the rounding of sums.
    #[test]
    fn plain_loops_agree() {
        let (n, k, outs) = (5, 77, 3);
        let values = |seed, len: usize| -> Vec<f32> {
            variable(seed, &[len])
                .to_dtype(DType::F32)
                .unwrap()
                .to_vec1()
                .unwrap()
        };
        let (x, w) = (values(1, n * k), values(2, outs * k));
        let device = &candle_core::Device::Cpu;
        let tensor = |x: &[f32], rows| Tensor::from_slice(x, (rows, k), device).unwrap();
        let want = row_invariant::linear(&tensor(&x, n), &tensor(&w, outs), None).unwrap();
        let want: Vec<Vec<f32>> = want.to_vec2().unwrap();
        for out in 0..outs {
            each_row(&x, &w[out * k..][..k], n, out, &mut |row, at, sums| {
                assert!((sums[0] - want[row][at]).abs() < 1e-5);
            });
        }
    }
}
