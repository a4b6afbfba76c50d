//! GELU and SwiGLU; the operands are checked where the operations are.

use candle_core::Tensor;

use super::module::{Grid, Source, source};
use crate::error::Result;
use crate::kernels::tensor::Dst;

static TEXT: Source = source!("activation");

pub fn gelu(x: &Tensor, y: Dst) -> Result<()> {
    let n = x.elem_count();
    let args = [x.into(), (&y).into(), n.into()];
    TEXT.of(x.dtype())?.launch("gelu", Grid::over(n), &args)
}

pub fn gelu_backward(dy: Dst, x: &Tensor, y: Dst) -> Result<()> {
    let n = x.elem_count();
    let args = [(&dy).into(), x.into(), (&y).into(), n.into()];
    let module = TEXT.of(x.dtype())?;
    module.launch("gelu_backward", Grid::over(n), &args)
}

pub fn swiglu(gate: &Tensor, up: &Tensor, y: Dst) -> Result<()> {
    let n = gate.elem_count();
    let args = [gate.into(), up.into(), (&y).into(), n.into()];
    let module = TEXT.of(gate.dtype())?;
    module.launch("swiglu", Grid::over(n), &args)
}

/// `y` and `dgate` are the outputs beside `dy`.
pub fn swiglu_backward(dy: Dst, gate: &Tensor, up: &Tensor, [y, dgate]: [Dst; 2]) -> Result<()> {
    let n = gate.elem_count();
    let operands = [&dy, gate, up, &y, &dgate].map(Into::into);
    let args = [&operands[..], &[n.into()]].concat();
    let module = TEXT.of(gate.dtype())?;
    module.launch("swiglu_backward", Grid::over(n), &args)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &["A"], 256)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use crate::kernels::activation::*;
    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::emulator::compare;
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    #[test]
    fn activations_are_those_of_the_processor() {
        check(&[[1, 1], [3, 5], [70, 129], [4, 512]]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || check(&[[3, 5], [2, 264]]));
    }

    fn check(shapes: &[[usize; 2]]) {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 4e-3)] {
            for shape in shapes {
                let inputs = [1, 2, 3].map(|seed| variable(seed, shape).to_dtype(dtype).unwrap());
                compare("activations", &inputs, tolerance, |inputs| {
                    let [x, up, dy] = [0, 1, 2].map(|i| &inputs[i]);
                    let (y, z) = (gelu(x).unwrap(), swiglu(x, up).unwrap());
                    let (dup, dx) = (dy.copy().unwrap(), dy);
                    let again = gelu_backward(Dst::shared(dx), x).unwrap();
                    let (once_more, dgate) = swiglu_backward(Dst::shared(&dup), x, up).unwrap();
                    vec![y, z, again, dx.clone(), once_more, dgate, dup]
                });
            }
        }
    }
}
