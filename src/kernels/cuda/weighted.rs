//! Row scaling and row-wise dot products.

use candle_core::{DType, Tensor};

use super::module::{Grid, Source, source};
use crate::error::Result;
use crate::kernels::device::to_host;
use crate::kernels::tensor::{Dst, fresh_of};

static TEXT: Source = source!("weighted");

pub fn weigh(x: Dst, weights: &Tensor) -> Result<()> {
    let (rows, width) = x.dims2()?;
    let operands = [(&x).into(), weights.into()];
    let args = [&operands[..], &[rows.into(), width.into()]].concat();
    TEXT.of(x.dtype())?
        .launch("weigh", Grid::warps(rows), &args)
}

pub fn dots(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    let (rows, width) = a.dims2()?;
    // SAFETY: all of it is written below.
    let sums = unsafe { fresh_of(rows, DType::F32, a)? };
    let operands = [a, b, &sums].map(Into::into);
    let args = [&operands[..], &[rows.into(), width.into()]].concat();
    TEXT.of(a.dtype())?
        .launch("dots", Grid::warps(rows), &args)?;
    let sums: Vec<f32> = to_host(&sums)?;
    Ok(sums.into_iter().map(f64::from).collect())
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &["A"], 256)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::emulator::compare;
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;
    use crate::kernels::weighted::{dots, weigh};

    #[test]
    fn row_scaling_and_row_dots_equal_the_cpu() {
        check(&[[1, 1], [3, 77], [130, 512]]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || check(&[[3, 77], [5, 256]]));
    }

    fn check(shapes: &[[usize; 2]]) {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::BF16, 1e-2)] {
            for shape in shapes {
                let inputs = [1, 2].map(|seed| variable(seed, shape).to_dtype(dtype).unwrap());
                let weights: Vec<f64> = (0..shape[0]).map(|i| 0.5 - i as f64 / 64.0).collect();
                compare("weighted rows", &inputs, tolerance, |inputs| {
                    let sums = dots(&inputs[0], &inputs[1]).unwrap();
                    let sums: Vec<f32> = sums.iter().map(|&sum| sum as f32).collect();
                    let sums = Tensor::from_vec(sums, shape[0], &candle_core::Device::Cpu).unwrap();
                    weigh(Dst::shared(&inputs[0]), &weights).unwrap();
                    vec![inputs[0].clone(), on(inputs[0].device(), &sums)]
                });
            }
        }
    }
}
