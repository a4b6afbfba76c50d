//! Layer norm and root-mean-square norm; the operands are checked where the operations are.

use candle_core::{DType, Tensor};

use super::columns::add_sums;
use super::module::{Arg, Grid, Module, PACK, Source, check_types, source, type_name};
use crate::error::Result;
use crate::kernels::operands::norm::Norm;
use crate::kernels::tensor::{Dst, fresh_of, rows};

static TEXT: Source = source!("norm");

/// The widest row that a warp takes alone.
const NARROW: usize = 1024;

/// Blocks of the backward pass, each with partial sums of the weights' gradients: two on each
/// multiprocessor of the largest cards, and as many on any other, so that sums are the same.
const BLOCKS: usize = 132 * 2;

/// Threads that share a row, and threads of a block.
struct Team(usize, usize);

impl Team {
    fn of(width: usize, wide: usize) -> Self {
        match width <= NARROW {
            true => Self(32, 256),
            false => Self(wide, wide),
        }
    }

    fn module(&self, norm: Norm, x: &Tensor, weight: &Tensor, dy: DType) -> Result<Module> {
        self.of_types([x.dtype(), weight.dtype(), dy], norm.plus_one())
    }

    fn of_types(&self, types: [DType; 3], plus_one: bool) -> Result<Module> {
        let [x, a, d] = types.map(type_name);
        let plus_one = usize::from(plus_one);
        TEXT.with([
            ("X", x?),
            ("A", a?),
            ("D", d?),
            ("TEAM", self.0.into()),
            ("PLUS_ONE", plus_one.into()),
        ])
    }

    fn grid(&self, rows: usize, most: usize, shared: usize) -> Grid {
        let blocks = rows.div_ceil(self.1 / self.0).min(most);
        // In front: an element per warp.
        Grid::new([blocks, 1, 1], self.1, size_of::<f32>() * (32 + shared))
    }
}

/// The output, of the weight's type, and the statistics.
pub fn norm(
    x: &Tensor,
    norm: Norm,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let (count, width, _) = rows(x)?;
    // SAFETY: all of both is written below.
    let (y, statistics) = unsafe {
        let y = fresh_of(x.shape(), weight.dtype(), x)?;
        (y, fresh_of((count, 2), DType::F32, x)?)
    };
    check_bias(weight, bias)?;
    let team = Team::of(width, 256);
    let operands = [
        x.into(),
        weight.into(),
        bias.into(),
        (&y).into(),
        (&statistics).into(),
    ];
    let numbers = [
        count.into(),
        width.into(),
        usize::from(norm.centered()).into(),
        Arg::Float(norm.epsilon()),
    ];
    let module = team.module(norm, x, weight, x.dtype())?;
    let grid = team.grid(count, usize::MAX, 0);
    module.launch("norm_forward", grid, &[&operands[..], &numbers].concat())?;
    Ok((y, statistics))
}

pub fn output(
    (norm, x, statistics): (Norm, &Tensor, &Tensor),
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (count, width, _) = rows(x)?;
    // SAFETY: all of it is written below.
    let y = unsafe { fresh_of(x.shape(), weight.dtype(), x)? };
    check_bias(weight, bias)?;
    let team = Team::of(width, 256);
    let operands = [
        x.into(),
        statistics.into(),
        weight.into(),
        bias.into(),
        (&y).into(),
    ];
    let args = [&operands[..], &[count.into(), width.into()]].concat();
    let module = team.module(norm, x, weight, x.dtype())?;
    module.launch("norm_output", team.grid(count, usize::MAX, 0), &args)?;
    Ok(y)
}

pub fn backward(
    dy: &Tensor,
    (norm, x, statistics): (Norm, &Tensor, &Tensor),
    weight: &Tensor,
    (dweight, dbias): (Option<Dst>, Option<Dst>),
    dx: Dst,
) -> Result<()> {
    let (count, width, _) = rows(x)?;
    check_types("norm: the gradient of its input", x.dtype(), &[&dx])?;
    let team = Team::of(width, 512);
    let parts = 1 + usize::from(norm.centered());
    let padded = width.next_multiple_of(team.0 * PACK);
    let grid = team.grid(count, BLOCKS, team.1 / team.0 * parts * padded);
    // SAFETY: all of it is written below.
    let partials = unsafe { fresh_of((grid.blocks[0] as usize, parts * width), DType::F32, x)? };
    let operands = [dy, x, statistics, weight, &dx, &partials].map(Into::into);
    let args = [&operands[..], &[count, width, parts - 1].map(Arg::Int)].concat();
    let module = team.module(norm, x, weight, dy.dtype())?;
    module.launch("norm_backward", grid, &args)?;
    if let Some(dweight) = dweight {
        add_sums(&partials.narrow(1, 0, width)?, dweight)?;
    }
    match dbias {
        Some(dbias) => add_sums(&partials.narrow(1, width, width)?, dbias),
        None => Ok(()),
    }
}

fn check_bias(weight: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    let bias = bias.into_iter().collect::<Vec<_>>();
    check_types("norm: a bias beside its weight", weight.dtype(), &bias)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    let teams = [Team::of(NARROW, 0), Team(256, 256), Team(512, 512)];
    let each = |(types, _): ([DType; 3], f64)| {
        let both = teams.iter().flat_map(|team| [(team, false), (team, true)]);
        let made = both.map(|(team, plus_one)| Ok((team.of_types(types, plus_one)?, team.1)));
        made.collect::<Result<Vec<_>>>()
    };
    let made: Result<Vec<_>> = tests::TYPES.into_iter().map(each).collect();
    Ok(made?.concat())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::emulator::compare;
    use crate::kernels::norm::*;
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    /// Types of the input, of the weights and of the output's gradient.
    pub const TYPES: [([DType; 3], f64); 4] = [
        ([DType::F32, DType::F32, DType::F32], 1e-5),
        ([DType::F32, DType::BF16, DType::F32], 4e-3),
        ([DType::F32, DType::BF16, DType::BF16], 4e-3),
        ([DType::BF16, DType::BF16, DType::BF16], 4e-3),
    ];

    fn compare_norms(shape: &[usize], types: [DType; 3], tolerance: f64) {
        let width = shape[shape.len() - 1];
        let [x, a, d] = types;
        let random = |seed, shape: &[usize], dtype| variable(seed, shape).to_dtype(dtype).unwrap();
        let inputs = [
            // A mean far from zero, which sums of squares do not survive.
            (random(1, shape, DType::F32) + 30.0)
                .unwrap()
                .to_dtype(x)
                .unwrap(),
            random(2, &[width], a),
            random(3, &[width], a),
            random(4, shape, d),
            random(5, shape, x),
            random(6, &[1 + width], DType::F32),
            random(7, &[width], DType::F32),
        ];
        let kinds = [
            Norm::LayerNorm { epsilon: 1e-5 },
            Norm::Rms {
                epsilon: 1e-5,
                plus_one: false,
            },
            Norm::Rms {
                epsilon: 1e-5,
                plus_one: true,
            },
        ];
        for kind in kinds {
            let centered = kind.centered();
            compare(
                &format!("norm {shape:?} {types:?} {kind:?}"),
                &inputs,
                tolerance,
                |inputs: &[Tensor]| {
                    let [x, weight, bias, dy, dx, dweight, dbias] =
                        [0, 1, 2, 3, 4, 5, 6].map(|i| &inputs[i]);
                    let bias = centered.then_some(bias);
                    let (y, saved) = norm(x, kind, weight, bias).unwrap();
                    let again = output(&saved, weight, bias).unwrap();
                    assert_eq!(y.dtype(), weight.dtype());
                    let into = dweight.narrow(0, 1, width).unwrap();
                    let dbias_into = centered.then(|| Dst::shared(dbias));
                    let gradients = (Some(Dst::shared(&into)), dbias_into);
                    backward(dy, &saved, weight, gradients, Dst::shared(dx)).unwrap();
                    vec![y, again, dx.clone(), dweight.clone(), dbias.clone()]
                },
            );
        }
    }

    #[test]
    fn norms_are_those_of_the_processor() {
        for (types, tolerance) in TYPES {
            for shape in [
                &[1, 3][..],
                &[5, 33],
                &[3, 2, 129],
                &[70, 8],
                &[2, 1024],
                &[3, 1025],
                &[5, 2560],
            ] {
                compare_norms(shape, types, tolerance);
            }
        }
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || {
            for (types, tolerance) in TYPES {
                compare_norms(&[5, 33], types, tolerance);
                compare_norms(&[3, 1032], types, tolerance);
            }
        });
    }

    /// More rows than the backward pass has teams.
    #[test]
    fn many_rows_are_summed_in_parts() {
        compare_norms(&[2200, 9], TYPES[0].0, 3e-5);
        compare_norms(&[270, 1026], TYPES[3].0, 1e-2);
    }
}
