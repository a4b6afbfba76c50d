//! Activations, alone and as gates; the operands are checked where the operations are.

use candle_core::{DType, Tensor};

use super::module::{Grid, Module, Source, Value, source, type_name};
use crate::error::Result;
use crate::kernels::operands::activation::Activation;
use crate::kernels::tensor::Dst;

static TEXT: Source = source!("activation");

fn module(kind: Activation, dtype: DType) -> Result<Module> {
    let kind = Value::Name(match kind {
        Activation::Gelu => "GELU",
        Activation::GeluTanh => "GELU_TANH",
        Activation::Silu => "SILU",
    });
    TEXT.with([("A", type_name(dtype)?), ("KIND", kind)])
}

pub fn apply(kind: Activation, x: &Tensor, y: Dst) -> Result<()> {
    let n = x.elem_count();
    let args = [x.into(), (&y).into(), n.into()];
    module(kind, x.dtype())?.launch("apply", Grid::over(n), &args)
}

pub fn apply_backward(kind: Activation, dy: Dst, x: &Tensor, y: Dst) -> Result<()> {
    let n = x.elem_count();
    let args = [(&dy).into(), x.into(), (&y).into(), n.into()];
    module(kind, x.dtype())?.launch("apply_backward", Grid::over(n), &args)
}

pub fn gated(kind: Activation, gate: &Tensor, up: &Tensor, y: Dst) -> Result<()> {
    let n = gate.elem_count();
    let args = [gate.into(), up.into(), (&y).into(), n.into()];
    module(kind, gate.dtype())?.launch("gated", Grid::over(n), &args)
}

/// `y` and `dgate` are the outputs beside `dy`.
pub fn gated_backward(
    kind: Activation,
    dy: Dst,
    gate: &Tensor,
    up: &Tensor,
    [y, dgate]: [Dst; 2],
) -> Result<()> {
    let n = gate.elem_count();
    let operands = [&dy, gate, up, &y, &dgate].map(Into::into);
    let args = [&operands[..], &[n.into()]].concat();
    module(kind, gate.dtype())?.launch("gated_backward", Grid::over(n), &args)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    let of_kind = |kind| [DType::F32, DType::BF16].map(|dtype| Ok((module(kind, dtype)?, 256)));
    let kinds = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];
    kinds.into_iter().flat_map(of_kind).collect()
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
        let kinds = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::BF16, 4e-3)] {
            for (kind, shape) in kinds
                .iter()
                .flat_map(|kind| shapes.iter().map(move |s| (*kind, s)))
            {
                let inputs = [1, 2, 3].map(|seed| variable(seed, shape).to_dtype(dtype).unwrap());
                compare(&format!("{kind:?}"), &inputs, tolerance, |inputs| {
                    let [x, up, dy] = [0, 1, 2].map(|i| &inputs[i]);
                    let (y, z) = (apply(kind, x).unwrap(), gated(kind, x, up).unwrap());
                    let (dup, dx) = (dy.copy().unwrap(), dy);
                    let again = apply_backward(kind, Dst::shared(dx), x).unwrap();
                    let (once_more, dgate) =
                        gated_backward(kind, Dst::shared(&dup), x, up).unwrap();
                    vec![y, z, again, dx.clone(), once_more, dgate, dup]
                });
            }
        }
    }
}
