//! Dropout.

use candle_core::Tensor;

use super::module::{Arg, Grid, Source, source};
use crate::error::Result;
use crate::kernels::operands::dropout::Dropout;
use crate::kernels::tensor::Dst;

static TEXT: Source = source!("dropout");

pub fn apply(x: &Tensor, dropout: Dropout, y: Dst, add: bool) -> Result<()> {
    let (rows, width) = x.dims2()?;
    let operands = [x, dropout.keys.tensor(), &y].map(Into::into);
    let [first, second] = dropout.seeds().map(|seed| seed as usize);
    let threshold = dropout.threshold() as usize;
    let numbers = [rows, width, first, second, threshold, usize::from(add)].map(Arg::Int);
    let args = [&operands[..], &numbers, &[Arg::Float(dropout.factor())]].concat();
    TEXT.of(x.dtype())?
        .launch("dropout", Grid::warps(rows), &args)
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
    use crate::kernels::dropout::{Dropout, RowKeys, add_dropped, dropped};
    use crate::kernels::emulator::compare;
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    #[test]
    fn the_same_elements_are_dropped_as_on_the_cpu() {
        check(&[[1, 1], [3, 77], [130, 512]]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || check(&[[3, 77], [5, 256]]));
    }

    fn check(shapes: &[[usize; 2]]) {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 1e-2)] {
            for shape in shapes {
                let inputs = [1, 2].map(|seed| variable(seed, shape).to_dtype(dtype).unwrap());
                let keys: Vec<u32> = (0..shape[0] as u32).map(|i| i * 0x9e37 + 1).collect();
                compare("dropout", &inputs, tolerance, |inputs: &[Tensor]| {
                    let keys = RowKeys::new(&keys, inputs[0].device()).unwrap();
                    let dropout = Dropout {
                        rate: 0.3,
                        seed: 0xfedc_ba98_7654_3210,
                        keys: &keys,
                    };
                    add_dropped(&inputs[0], dropout, Dst::shared(&inputs[1])).unwrap();
                    vec![dropped(&inputs[0], dropout).unwrap(), inputs[1].clone()]
                });
            }
        }
    }
}
