//! `y = x W^T + b` for few rows, each of which has the same bits whatever the others are.
//!
//! In host memory alone. Weights are f32 or f64 as `x` is, or bf16 beside an f32 `x`, which is then
//! rounded, too; sums are never rounded to bf16.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::cpu;
use crate::kernels::profile::{self, Part};
use crate::kernels::tensor::{Dst, fresh};

/// A copy of an f32 `weight` (out, in) in bf16, each element rounded to the nearest.
///
/// # Errors
/// If the weight is not f32, or not in host memory.
pub fn rounded(weight: &Tensor) -> Result<Tensor> {
    match Backend::of(weight) {
        Backend::Cpu => cpu::row_invariant::rounded(weight),
        Backend::Cuda | Backend::Emulator => Err(not_on_a_gpu()),
    }
}

/// `x` (n, in), `weight` (out, in), `bias` (out) -> (n, out).
///
/// # Errors
/// If shapes or dtypes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh((x.dim(0)?, weight.dim(0)?), x)? };
    linear_into(x, weight, bias, &mut y)?;
    Ok(y)
}

/// As [`linear`], into `y` (n, out), which may be columns of a wider tensor.
///
/// # Errors
/// As of [`linear`].
pub fn linear_into<'a>(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    y: impl Into<Dst<'a>>,
) -> Result<()> {
    product(x, weight, bias, y.into(), false)
}

/// Adds `x W^T` to `y` (n, out).
///
/// # Errors
/// As of [`linear`].
pub fn linear_add<'a>(x: &Tensor, weight: &Tensor, y: impl Into<Dst<'a>>) -> Result<()> {
    product(x, weight, None, y.into(), true)
}

fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, y: Dst, add: bool) -> Result<()> {
    let _profile = profile::part(Part::Gemm);
    let ((n, k), (outs, _)) = (x.dims2()?, weight.dims2()?);
    let dense = x.is_contiguous() && weight.is_contiguous();
    let biased = bias.is_none_or(|bias| bias.dims() == [outs] && bias.is_contiguous());
    if weight.dims() != [outs, k] || y.dims() != [n, outs] || !dense || !biased {
        return Err(Error::failed(format!(
            "matmuls of {:?} rows with {:?} and {:?} into {:?}",
            x.dims(),
            weight.dims(),
            bias.map(Tensor::dims),
            y.dims()
        )));
    }
    match Backend::of(x) {
        Backend::Cpu => {
            profile::product(n, outs, k);
            cpu::row_invariant::product(x, weight, bias, y, add)
        }
        Backend::Cuda | Backend::Emulator => Err(not_on_a_gpu()),
    }
}

fn not_on_a_gpu() -> Error {
    Error::failed("row-invariant matmuls are computed in host memory alone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::DType;

    /// Rows on either side of what is computed at once, and an odd number of everything.
    const SHAPES: [(usize, usize, usize); 7] = [
        (1, 64, 8),
        (1, 1, 1),
        (7, 33, 9),
        (13, 100, 67),
        (6, 512, 130),
        (40, 48, 6),
        (3, 0, 5),
    ];

    fn plain(x: &Tensor, w: &Tensor, b: &Tensor) -> Tensor {
        let [x, w, b] = [x, w, b].map(|x| x.to_dtype(DType::F64).unwrap());
        x.matmul(&w.t().unwrap())
            .unwrap()
            .broadcast_add(&b)
            .unwrap()
    }

    #[test]
    fn products_are_those_of_candle() {
        for (n, k, outs) in SHAPES.into_iter().filter(|&(_, k, _)| k > 0) {
            let [x, w, b] = [&[n, k][..], &[outs, k], &[outs]].map(|shape| variable(1, shape));
            for (dtype, rounded, tolerance) in [
                (DType::F64, DType::F64, 1e-13),
                (DType::F32, DType::F32, 3e-6),
                (DType::F32, DType::BF16, 3e-6),
            ] {
                let cast = |x: &Tensor, dtype| x.to_dtype(dtype).unwrap();
                let (x, b) = (cast(&x, dtype), cast(&b, dtype));
                let w = cast(&w, rounded);
                let want = plain(&cast(&x, rounded), &w, &b);
                let got = linear(&x, &w, Some(&b)).unwrap();
                assert_near(&got, &want, tolerance, "with a bias");
                linear_add(&x, &w, Dst::shared(&got)).unwrap();
                let twice = ((&want * 2.0).unwrap().broadcast_sub(&cast(&b, DType::F64))).unwrap();
                assert_near(&got, &twice, tolerance, "added");
                let wide = Tensor::zeros((n, outs + 5), dtype, x.device()).unwrap();
                linear_into(
                    &x,
                    &w,
                    Some(&b),
                    Dst::shared(&wide.narrow(1, 3, outs).unwrap()),
                )
                .unwrap();
                assert_near(
                    &wide.narrow(1, 3, outs).unwrap(),
                    &want,
                    tolerance,
                    "columns",
                );
                let rest = wide
                    .narrow(1, 0, 3)
                    .unwrap()
                    .abs()
                    .unwrap()
                    .sum_all()
                    .unwrap();
                assert_eq!(cast(&rest, DType::F64).to_scalar::<f64>().unwrap(), 0.0);
            }
        }
    }

    #[test]
    fn no_bit_depends_on_other_rows_or_threads() {
        for (n, k, outs) in SHAPES {
            for dtype in [DType::F32, DType::BF16] {
                let x = variable(1, &[n, k]).to_dtype(DType::F32).unwrap();
                let w = variable(2, &[outs, k]).to_dtype(dtype).unwrap();
                let bits = |x: &Tensor| -> Vec<u32> {
                    let y = linear(x, &w, None).unwrap().flatten_all().unwrap();
                    y.to_vec1::<f32>()
                        .unwrap()
                        .iter()
                        .map(|y| y.to_bits())
                        .collect()
                };
                let together = bits(&x);
                let alone: Vec<u32> = (0..n)
                    .flat_map(|row| bits(&x.narrow(0, row, 1).unwrap()))
                    .collect();
                assert_eq!(together, alone, "{n} {k} {outs} {dtype:?}");
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    assert_eq!(pool.unwrap().install(|| bits(&x)), together);
                }
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (x, w) = (variable(1, &[5, 3]), variable(2, &[4, 6]));
        assert!(linear(&x, &w, None).is_err());
        let (w, b) = (variable(2, &[4, 3]), variable(3, &[5]));
        assert!(linear(&x, &w, Some(&b)).is_err());
        assert!(linear_add(&x, &w, Dst::shared(&variable(4, &[5, 5]))).is_err());
        assert!(linear(&x, &w.to_dtype(DType::BF16).unwrap(), None).is_err());
    }
}
