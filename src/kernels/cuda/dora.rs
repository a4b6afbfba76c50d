//! Rows of an adapted weight scaled to learned magnitudes.

use candle_core::{DType, Tensor};

use super::columns;
use super::module::{Arg, Grid, Module, Source, source, type_name};
use crate::error::Result;
use crate::kernels::tensor::{Dst, fresh_of, rows};

static TEXT: Source = source!("dora");

fn module(from: DType, to: DType) -> Result<Module> {
    TEXT.with([("W", type_name(from)?), ("Y", type_name(to)?)])
}

pub fn factors(
    weight: &Tensor,
    (a, b, scale): (&Tensor, &Tensor, f64),
    magnitude: &Tensor,
    [own, norm]: [Dst; 2],
) -> Result<()> {
    let ((outs, input), (rank, _)) = (weight.dims2()?, a.dims2()?);
    let operands = [weight, a, b, magnitude, &own, &norm].map(Into::into);
    let numbers = [outs, input, rank].map(Arg::Int);
    let args = [&operands[..], &numbers, &[Arg::Float(scale)]].concat();
    module(weight.dtype(), weight.dtype())?.launch("factors", Grid::warps(outs), &args)
}

pub fn add_scaled(x: &Tensor, f: &Tensor, y: Dst) -> Result<()> {
    let ((count, width, from), (_, _, to)) = (rows(x)?, rows(&y)?);
    let operands = [x, f, &y].map(Into::into);
    let numbers = [count, width, from, to].map(Arg::Int);
    let args = [&operands[..], &numbers].concat();
    module(x.dtype(), y.dtype())?.launch("add_scaled", Grid::warps(count), &args)
}

pub fn add_dots(a: &Tensor, b: &Tensor, norm: &Tensor, sums: Dst) -> Result<()> {
    let ((count, width, of_a), (_, _, of_b)) = (rows(a)?, rows(b)?);
    // SAFETY: all of it is written below.
    let products = unsafe { fresh_of((count, width), DType::F32, a)? };
    let operands = [a, b, norm, &products].map(Into::into);
    let numbers = [count, width, of_a, of_b].map(Arg::Int);
    let args = [&operands[..], &numbers].concat();
    module(a.dtype(), DType::F32)?.launch("products", Grid::warps(count), &args)?;
    columns::add_sums(&products, sums)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &["W", "Y"], 256)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::dora::{add_dots, add_scaled, factors};
    use crate::kernels::emulator::compare;
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    #[test]
    fn rows_scaled_to_magnitudes_equal_the_cpu() {
        check(&[(1, 1, 1, 1), (5, 33, 77, 3), (130, 70, 256, 16)]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || check(&[(5, 33, 77, 3)]));
    }

    fn check(shapes: &[(usize, usize, usize, usize)]) {
        for (dtype, to, tolerance) in [
            (DType::F32, DType::F32, 1e-5),
            (DType::BF16, DType::BF16, 1e-2),
            (DType::F32, DType::BF16, 1e-2),
            (DType::BF16, DType::F32, 1e-2),
        ] {
            for &(n, outs, input, rank) in shapes {
                let of = |seed, shape: &[usize]| variable(seed, shape).to_dtype(dtype).unwrap();
                let inputs = [
                    of(1, &[outs, input]),
                    of(2, &[rank, input]),
                    of(3, &[outs, rank]),
                    of(4, &[outs]),
                    of(5, &[n, outs + 2]),
                    of(6, &[n, outs]),
                    variable(7, &[n, outs + 3]).to_dtype(to).unwrap(),
                    variable(8, &[outs]).to_dtype(DType::F32).unwrap(),
                ];
                compare(
                    "rows of magnitudes",
                    &inputs,
                    tolerance,
                    |inputs: &[Tensor]| {
                        let [w, a, b, m, x, z, y, sums] = inputs else {
                            unreachable!("eight of them")
                        };
                        let factors = factors(w, (a, b, 1.5), m).unwrap();
                        let x = x.narrow(1, 1, outs).unwrap();
                        let columns = y.narrow(1, 2, outs).unwrap();
                        add_scaled(&x, &factors.scale, Dst::shared(&columns)).unwrap();
                        add_dots(&x, z, &factors.norm, Dst::shared(sums)).unwrap();
                        vec![factors.scale, factors.norm, y.clone(), sums.clone()]
                    },
                );
            }
        }
    }
}
