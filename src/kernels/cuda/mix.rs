//! A weighted mean of two tensors.

use candle_core::Tensor;

use super::module::{Arg, Grid, Source, source};
use crate::error::Result;
use crate::kernels::tensor::Dst;

static TEXT: Source = source!("mix");

pub fn mix(own: Dst, other: &Tensor, share: f64) -> Result<()> {
    let n = own.elem_count();
    let shares = [Arg::Float(share), Arg::Float(1.0 - share)];
    let args = [&[(&own).into(), other.into()], &shares[..], &[n.into()]].concat();
    TEXT.of(own.dtype())?.launch("mix", Grid::over(n), &args)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &["A"], 256)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::emulator::compare;
    use crate::kernels::mix::mix;
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    #[test]
    fn a_mix_is_that_of_the_processor() {
        check(&[1, 77, 5_000]);
    }

    #[test]
    fn its_ptx_computes_the_same() {
        covering(super::modules(), || check(&[77, 2_064]));
    }

    fn check(sizes: &[usize]) {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 4e-3)] {
            for &n in sizes {
                let inputs = [1, 2].map(|seed| variable(seed, &[n]).to_dtype(dtype).unwrap());
                compare("mix", &inputs, tolerance, |inputs| {
                    mix(Dst::shared(&inputs[0]), &inputs[1], 0.3).unwrap();
                    vec![inputs[0].clone()]
                });
            }
        }
    }
}
