//! Rotary position embedding in place; the operands are checked where the operation is.

use candle_core::{DType, Tensor};

use super::module::{Arg, Grid, Source, check_types, source};
use crate::error::{Error, Result};
use crate::kernels::tensor::Dst;

static TEXT: Source = source!("rotary");

pub fn turn(x: Dst, cos: &Tensor, sin: &Tensor, direction: f64) -> Result<()> {
    let (tokens, heads, _) = x.dims3()?;
    check_types("rotary", DType::F32, &[cos, sin])?;
    if !cos.is_contiguous() || !sin.is_contiguous() || cos.dims() != sin.dims() {
        return Err(Error::failed("rotary: angles with gaps"));
    }
    let half = cos.elem_count() / tokens.max(1);
    let operands = [&x, cos, sin].map(Into::into);
    let numbers = [tokens, heads, half, x.stride()[0], x.stride()[1]].map(Arg::Int);
    let args = [&operands[..], &numbers, &[Arg::Float(direction)]].concat();
    TEXT.of(x.dtype())?
        .launch("turn", Grid::warps(tokens), &args)
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
    use crate::kernels::rotary::*;
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    #[test]
    fn turns_are_those_of_the_processor() {
        check(&[(1, 1, 1, 0), (5, 3, 10, 13), (70, 2, 33, 1), (9, 4, 32, 0)]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || check(&[(5, 3, 10, 13), (3, 4, 32, 0)]));
    }

    fn check(sizes: &[(usize, usize, usize, usize)]) {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 8e-3)] {
            for &(tokens, heads, half, rest) in sizes {
                let dim = 2 * half + rest;
                let random = |seed, shape: &[usize]| variable(seed, shape).to_dtype(dtype).unwrap();
                let theta = variable(3, &[tokens, 1, half])
                    .to_dtype(DType::F32)
                    .unwrap();
                let inputs = [
                    random(1, &[tokens, heads, 3, dim]),
                    random(2, &[tokens, heads + 3, dim]),
                    theta.cos().unwrap(),
                    theta.sin().unwrap(),
                ];
                compare("turns", &inputs, tolerance, |inputs: &[Tensor]| {
                    let [fused, apart, cos, sin] = [0, 1, 2, 3].map(|i| inputs[i].clone());
                    let angles = Angles { cos, sin };
                    let view = fused.narrow(2, 1, 1).unwrap().squeeze(2).unwrap();
                    rotate(Dst::shared(&view), &angles).unwrap();
                    rotate_back(Dst::shared(&apart.narrow(1, 2, heads).unwrap()), &angles).unwrap();
                    vec![fused, apart]
                });
            }
        }
    }
}
