//! Updates of weights, and bf16 weights with what they lack; the operands' lengths are checked where
//! the operations are.

use candle_core::{DType, Tensor};

use super::module::{Arg, Grid, Module, Source, Value, source, type_name};
use crate::error::{Error, Result};
use crate::kernels::device::to_host;
use crate::kernels::operands::blockwise::{BLOCK, CODES, Coded, Maps};
use crate::kernels::operands::optimizer::{Adam, AdamStep, Decayed, Lion, RmsProp, Weights};
use crate::kernels::tensor::{Dst, fresh_of};

static TEXT: Source = source!("optimizer");

/// Sums of a block's warps, in f64.
const SHARED: usize = 32 * 8;

/// Waits for the result, which the host reads.
pub fn squared_norm(x: &Tensor) -> Result<f64> {
    check(&[(x, DType::F32)])?;
    let n = x.elem_count();
    // The same number of blocks on every card, so that the sum is the same.
    let grid = Grid {
        shared: SHARED,
        ..Grid::over(n)
    };
    let blocks = grid.blocks[0] as usize;
    if blocks == 0 {
        return Ok(0.0);
    }
    // SAFETY: all of both is written by the kernels.
    let make = |n: usize| unsafe { fresh_of(n, DType::F64, x) };
    let (sums, total) = (make(blocks)?, make(1)?);
    let module = module("Plain", DType::F32)?;
    module.launch("squares", grid, &[x.into(), (&sums).into(), n.into()])?;
    let args = [(&sums).into(), (&total).into(), blocks.into()];
    module.launch("total", Grid::new([1, 1, 1], 256, SHARED), &args)?;
    Ok(to_host::<f64>(&total)?[0])
}

pub fn adam(
    adam: &Adam,
    decayed: &Decayed,
    weights: Weights,
    (mean, square): (Dst, Dst),
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let module = checked(&weights, &[&mean, &square], gradient)?;
    let numbers = numbers(&AdamStep::new(adam, scale));
    let (n, places) = (gradient.elem_count(), decayed.places());
    let mut args = tensors(&weights).to_vec();
    args.extend([&mean, &square, gradient, places].map(Arg::from));
    args.extend([places.elem_count() - 1, n].map(Arg::Int));
    args.extend(numbers.map(Arg::Float));
    args.push(key(adam.step, gradient));
    module.launch("adam", Grid::over(n), &args)
}

pub fn rmsprop(
    rmsprop: &RmsProp,
    weights: Weights,
    square: Dst,
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let module = checked(&weights, &[&square], gradient)?;
    let RmsProp { alpha, rate, .. } = *rmsprop;
    let numbers = [scale, alpha, 1.0 - alpha, rate, rmsprop.epsilon];
    let n = gradient.elem_count();
    let mut args = tensors(&weights).to_vec();
    args.extend([Arg::from(&square), gradient.into(), n.into()]);
    args.extend(numbers.map(Arg::Float));
    args.push(key(rmsprop.step, gradient));
    module.launch("rmsprop", Grid::over(n), &args)
}

pub fn lion(
    lion: &Lion,
    decayed: &Decayed,
    weights: Weights,
    mean: Dst,
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let module = checked(&weights, &[&mean], gradient)?;
    let Lion { beta1, beta2, .. } = *lion;
    let decay = 1.0 - lion.rate * lion.weight_decay;
    let rests = [beta1, 1.0 - beta1, beta2, 1.0 - beta2];
    let (n, places) = (gradient.elem_count(), decayed.places());
    let mut args = tensors(&weights).to_vec();
    args.extend([&mean, gradient, places].map(Arg::from));
    args.extend([places.elem_count() - 1, n].map(Arg::Int));
    args.push(Arg::Float(scale));
    args.extend(rests.map(Arg::Float));
    args.extend([decay, lion.rate].map(Arg::Float));
    args.push(key(lion.step, gradient));
    module.launch("lion", Grid::over(n), &args)
}

pub fn adam_8bit(
    adam: &Adam,
    decays: bool,
    maps: &Maps,
    weights: Weights,
    [mean, square]: [Coded; 2],
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let module = checked(&weights, &[], gradient)?;
    let mut step = AdamStep::new(adam, scale);
    if !decays {
        step.keep = 1.0;
    }
    let n = gradient.elem_count();
    let moments = [mean.codes, mean.absmax, square.codes, square.absmax];
    let mut args = tensors(&weights).to_vec();
    args.extend(moments.iter().map(Arg::from));
    args.extend([gradient, maps.tensor()].map(Arg::from));
    args.push(n.into());
    args.extend(numbers(&step).map(Arg::Float));
    let grid = Grid {
        shared: 4 * CODES * 4,
        ..Grid::warps(n.div_ceil(BLOCK))
    };
    module.launch("adam_8bit", grid, &args)
}

pub fn descend(keep: f64, rate: f64, weights: Weights, direction: &Tensor) -> Result<()> {
    let module = checked(&weights, &[], direction)?;
    let n = direction.elem_count();
    let mut args = tensors(&weights).to_vec();
    args.extend([Arg::from(direction), n.into()]);
    args.extend([keep, rate].map(Arg::Float));
    module.launch("descend", Grid::over(n), &args)
}

/// In the kernels' order.
fn numbers(step: &AdamStep) -> [f64; 9] {
    [
        step.scale,
        step.beta1.0,
        step.beta1.1,
        step.beta2.0,
        step.beta2.1,
        step.keep,
        step.rate,
        step.root,
        step.epsilon,
    ]
}

fn module(weights: &'static str, moments: DType) -> Result<Module> {
    TEXT.with([
        ("WEIGHTS", Value::Name(weights)),
        ("MOMENT", type_name(moments)?),
    ])
}

/// The module for an update of `weights`, whose types go together.
fn checked(weights: &Weights, moments: &[&Tensor], gradient: &Tensor) -> Result<Module> {
    let moment = moments.first().map_or(DType::F32, |x| x.dtype());
    let (name, kept) = match weights {
        Weights::Plain(weights) => ("Plain", vec![(&**weights, DType::F32)]),
        Weights::Master { weights, master } => {
            let kept = vec![(&**weights, DType::BF16), (&**master, DType::F32)];
            ("Master", kept)
        }
        Weights::Split { weights, low } => (
            "Split",
            vec![(&**weights, DType::BF16), (&**low, DType::I16)],
        ),
    };
    if moment == DType::BF16 && name != "Split" {
        return Err(Error::failed("bf16 moments beside f32 weights"));
    }
    let moments = moments.iter().map(|&x| (x, moment));
    let all = kept.into_iter().chain(moments);
    check(&all.chain([(gradient, DType::F32)]).collect::<Vec<_>>())?;
    module(name, moment)
}

/// # Errors
/// If a tensor is not of its type.
fn check(tensors: &[(&Tensor, DType)]) -> Result<()> {
    if tensors.iter().all(|(x, dtype)| x.dtype() == *dtype) {
        return Ok(());
    }
    let got: Vec<DType> = tensors.iter().map(|(x, _)| x.dtype()).collect();
    let want: Vec<DType> = tensors.iter().map(|(_, dtype)| *dtype).collect();
    Err(Error::failed(format!(
        "optimizer buffers on a GPU of {got:?}, not {want:?}"
    )))
}

/// Where a kernel finds f32 weights, bf16 weights and what these lack.
fn tensors<'a>(weights: &'a Weights) -> [Arg<'a>; 3] {
    match weights {
        Weights::Plain(weights) => [weights.into(), Arg::Nothing, Arg::Nothing],
        Weights::Master { weights, master } => [master.into(), weights.into(), Arg::Nothing],
        Weights::Split { weights, low } => [Arg::Nothing, weights.into(), low.into()],
    }
}

/// What an update's random bits are made from: the step, and where the gradient begins in its buffer, so that a
/// piece has the bits that it has in the whole. It begins at an even place, as a kernel has one word for two
/// elements.
fn key<'a>(step: u64, gradient: &Tensor) -> Arg<'a> {
    let start = gradient.layout().start_offset() as u64;
    // As `random_bits` steps from one element to the next.
    let passed = start.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Arg::Int(mixed(step).wrapping_add(passed) as usize)
}

/// The finisher of splitmix64, Steele, Lea and Flood 2014.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    let kinds = [
        ("Plain", DType::F32),
        ("Master", DType::F32),
        ("Split", DType::F32),
        ("Split", DType::BF16),
    ];
    let made = kinds.map(|(weights, moments)| Ok((module(weights, moments)?, 256)));
    made.into_iter().collect()
}

#[cfg(test)]
mod tests;
