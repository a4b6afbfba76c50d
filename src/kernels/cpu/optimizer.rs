//! Optimizer updates over flat buffers in host memory.

mod blockwise;

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::{LANES, vectorized};
use crate::error::Result;
use crate::kernels::operands::optimizer::{Adam, AdamStep, Decayed, Lion, RmsProp, Weights};
use crate::kernels::tensor::Dst;

pub use blockwise::adam_8bit;

/// Elements per unit of parallel work; sums are taken per unit, so that they do not depend on the
/// number of threads.
pub const UNIT: usize = 1 << 14;

pub fn squared_norm(x: &Tensor) -> Result<f64> {
    each_real!(x, T => {
        let x = read(x);
        let units = x.values::<T>()?.par_chunks(UNIT).map(sum_of_squares);
        Ok(units.collect::<Vec<f64>>().iter().sum())
    })
}

pub fn adam(
    adam: &Adam,
    decayed: &Decayed,
    weights: Weights,
    (mean, square): (Dst, Dst),
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let (weights, decayed) = (weights.plain()?, decayed.ranges());
    each_real!(weights, T => write(weights, |weights: &mut [T]| {
        write(mean, |mean: &mut [T]| write(square, |square: &mut [T]| {
            let gradient = read(gradient);
            let step = AdamStep::new(adam, scale).map(T::of);
            let moments = mean.par_chunks_mut(UNIT).zip(square.par_chunks_mut(UNIT));
            let units = moments.zip(gradient.values::<T>()?.par_chunks(UNIT));
            let units = weights.par_chunks_mut(UNIT).zip(units).enumerate();
            units.for_each(|(unit, (w, ((m, v), g)))| {
                let start = unit * UNIT;
                for (part, decays) in parts(start..start + w.len(), decayed) {
                    let keep = if decays { step.keep } else { T::ONE };
                    let (w, m) = (&mut w[part.clone()], &mut m[part.clone()]);
                    adam_unit(&step, keep, w, m, &mut v[part.clone()], &g[part]);
                }
            });
            Ok(())
        }))
    }))
}

pub fn rmsprop(
    rmsprop: &RmsProp,
    weights: Weights,
    square: Dst,
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let weights = weights.plain()?;
    each_real!(weights, T => write(weights, |weights: &mut [T]| {
        write(square, |square: &mut [T]| {
            let gradient = read(gradient);
            let units = gradient.values::<T>()?.par_chunks(UNIT);
            let units = square.par_chunks_mut(UNIT).zip(units);
            let units = weights.par_chunks_mut(UNIT).zip(units);
            units.for_each(|(w, (v, g))| rmsprop_unit(rmsprop, T::of(scale), w, v, g));
            Ok(())
        })
    }))
}

pub fn lion(
    lion: &Lion,
    decayed: &Decayed,
    weights: Weights,
    mean: Dst,
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let (weights, decayed) = (weights.plain()?, decayed.ranges());
    let keep = 1.0 - lion.rate * lion.weight_decay;
    each_real!(weights, T => write(weights, |weights: &mut [T]| {
        write(mean, |mean: &mut [T]| {
            let gradient = read(gradient);
            let units = gradient.values::<T>()?.par_chunks(UNIT);
            let units = mean.par_chunks_mut(UNIT).zip(units);
            let units = weights.par_chunks_mut(UNIT).zip(units).enumerate();
            units.for_each(|(unit, (w, (m, g)))| {
                let start = unit * UNIT;
                for (part, decays) in parts(start..start + w.len(), decayed) {
                    let keep = if decays { T::of(keep) } else { T::ONE };
                    let (w, m) = (&mut w[part.clone()], &mut m[part.clone()]);
                    lion_unit(lion, T::of(scale), keep, w, m, &g[part]);
                }
            });
            Ok(())
        })
    }))
}

pub fn descend(keep: f64, rate: f64, weights: Weights, direction: &Tensor) -> Result<()> {
    let weights = weights.plain()?;
    each_real!(weights, T => write(weights, |weights: &mut [T]| {
        let direction = read(direction);
        let units = direction.values::<T>()?.par_chunks(UNIT);
        let units = weights.par_chunks_mut(UNIT).zip(units);
        units.for_each(|(w, x)| descend_unit(T::of(keep), T::of(rate), w, x));
        Ok(())
    }))
}

/// The runs of `unit`, counted from its start, each with whether it is `decayed`.
fn parts(unit: Range<usize>, decayed: &[Range<usize>]) -> Vec<(Range<usize>, bool)> {
    let mut parts = Vec::new();
    let mut at = unit.start;
    let mut add = |to: usize, decays: bool| {
        if to > at {
            parts.push((at - unit.start..to - unit.start, decays));
            at = to;
        }
    };
    let first = decayed.partition_point(|range| range.end <= unit.start);
    for range in decayed[first..].iter().take_while(|r| r.start < unit.end) {
        add(range.start, false);
        add(range.end.min(unit.end), true);
    }
    add(unit.end, false);
    parts
}

vectorized! {
fn adam_unit<T: Real>(
    step: &AdamStep<T>,
    keep: T,
    weights: &mut [T],
    mean: &mut [T],
    square: &mut [T],
    gradient: &[T],
) {
    let moments = mean.iter_mut().zip(square).zip(gradient);
    for (w, ((m, v), g)) in weights.iter_mut().zip(moments) {
        adam_element(step, keep, w, (m, v), *g);
    }
}
}

#[inline(always)]
fn adam_element<T: Real>(
    step: &AdamStep<T>,
    keep: T,
    weight: &mut T,
    (mean, square): (&mut T, &mut T),
    gradient: T,
) {
    let x = gradient * step.scale;
    *mean = step.beta1.0 * *mean + step.beta1.1 * x;
    *square = step.beta2.0 * *square + step.beta2.1 * (x * x);
    let root = step.root * square.root() + step.epsilon;
    *weight = keep * *weight - step.rate * (*mean / root);
}

vectorized! {
fn rmsprop_unit<T: Real>(
    step: &RmsProp,
    scale: T,
    weights: &mut [T],
    square: &mut [T],
    gradient: &[T],
) {
    let (alpha, fresh) = (T::of(step.alpha), T::of(1.0 - step.alpha));
    let (rate, epsilon) = (T::of(step.rate), T::of(step.epsilon));
    for (w, (v, g)) in weights.iter_mut().zip(square.iter_mut().zip(gradient)) {
        let x = *g * scale;
        let square = alpha * *v + fresh * (x * x);
        *w -= rate * (x / (square.root() + epsilon));
        *v = square;
    }
}
}

vectorized! {
fn lion_unit<T: Real>(
    step: &Lion,
    scale: T,
    keep: T,
    weights: &mut [T],
    mean: &mut [T],
    gradient: &[T],
) {
    let (beta1, rest1) = (T::of(step.beta1), T::of(1.0 - step.beta1));
    let (beta2, rest2) = (T::of(step.beta2), T::of(1.0 - step.beta2));
    let rate = T::of(step.rate);
    for (w, (m, g)) in weights.iter_mut().zip(mean.iter_mut().zip(gradient)) {
        let x = *g * scale;
        let direction = beta1 * *m + rest1 * x;
        let up = if direction > T::ZERO { rate } else { T::ZERO };
        let down = if direction < T::ZERO { rate } else { T::ZERO };
        *w = keep * *w - (up - down);
        *m = beta2 * *m + rest2 * x;
    }
}
}

vectorized! {
fn descend_unit<T: Real>(keep: T, rate: T, weights: &mut [T], direction: &[T]) {
    for (w, x) in weights.iter_mut().zip(direction) {
        *w = keep * *w - rate * *x;
    }
}
}

vectorized! {
fn sum_of_squares<T: Real>(x: &[T]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (groups, rest) = x.as_chunks::<LANES>();
    for group in groups {
        for (sum, x) in lanes.iter_mut().zip(group) {
            *sum += x.wide() * x.wide();
        }
    }
    for (sum, x) in lanes.iter_mut().zip(rest) {
        *sum += x.wide() * x.wide();
    }
    lanes.iter().sum()
}
}
