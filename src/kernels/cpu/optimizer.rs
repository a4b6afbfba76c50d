//! Optimizer updates over flat buffers in host memory.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::{LANES, vectorized};
use crate::error::Result;
use crate::kernels::operands::optimizer::{Adam, AdamStep, Decayed, RmsProp, Weights};
use crate::kernels::tensor::Dst;

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
        let x = *g * step.scale;
        let mean = step.beta1.0 * *m + step.beta1.1 * x;
        let square = step.beta2.0 * *v + step.beta2.1 * (x * x);
        *w = keep * *w - step.rate * (mean / (step.root * square.root() + step.epsilon));
        *m = mean;
        *v = square;
    }
}
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
