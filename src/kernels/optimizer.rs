//! Optimizer updates over flat buffers, in place, in one pass.
//!
//! *Why*: an update is bound by memory. Each element of weights, moments and gradient is read once
//! and each of weights and moments written once. Bytes moved per parameter and update of Adam, and
//! kept between updates:
//!
//! | weights | moments | moved | kept |
//! | --- | --- | --- | --- |
//! | [`Weights::Plain`], f32 | f32 | 28 | 12 |
//! | [`Weights::Master`], bf16 beside f32 | f32 | 30 | 14 |
//! | [`Weights::Split`], bf16 and what it lacks | bf16 | 20 | 8 |
//!
//! of which 4 are the read of an f32 gradient. RMSprop has one moment less: 20, 22 and 16.

mod weights;

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

pub use self::weights::{Decayed, Weights};

use super::cpu::{each_real, read, write};
use super::profile::{self, Part};
use super::real::Real;
use super::simd::{LANES, vectorized};
use crate::error::{Error, Result};

/// Elements per unit of parallel work; sums are taken per unit, so that they do not depend on the
/// number of threads.
const UNIT: usize = 1 << 14;

/// An update of Adam with decoupled weight decay: Kingma and Ba 2015, algorithm 1; Loshchilov and
/// Hutter 2019, algorithm 2.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// The learning rate.
    pub rate: f64,
    /// The share of a weight that is taken off, times the learning rate.
    pub weight_decay: f64,
    /// Which update this is, from 1.
    pub step: u64,
}

/// An update of RMSprop as in the official DPO repository.
#[derive(Debug, Clone, Copy)]
pub struct RmsProp {
    /// Decay of the mean of squared gradients.
    pub alpha: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// The learning rate.
    pub rate: f64,
    /// Which update this is, from 1.
    pub step: u64,
}

/// The sum of squares of a contiguous tensor, accumulated in f64. The host waits for it on a GPU.
pub fn squared_norm(x: &Tensor) -> Result<f64> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[x])?;
    on_gpu!(x => super::gpu::optimizer::squared_norm(x));
    each_real!(x, T => {
        let x = read(x);
        let units = x.values::<T>()?.par_chunks(UNIT).map(sum_of_squares);
        Ok(units.collect::<Vec<f64>>().iter().sum())
    })
}

/// Moves the averages `mean` and `square` towards `gradient * scale` and its square, and then the
/// weights: `w -= rate * (weight_decay * w + mean' / (sqrt(square') + epsilon))`, where the primes
/// are the averages without their bias towards zero. Tensors are (n); `decayed` has the elements
/// that weight decay applies to. On a GPU the gradient is f32, and the moments are f32, or
/// bf16 beside [`Weights::Split`]: rounded up or down by chance, so that the mean of many is right.
pub fn adam(
    adam: &Adam,
    decayed: &Decayed,
    weights: Weights,
    (mean, square): (&Tensor, &Tensor),
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[&weights.tensors()[..], &[mean, square, gradient]].concat())?;
    on_gpu!(gradient => super::gpu::optimizer::adam(
        adam, decayed, weights, (mean, square), (gradient, scale)
    ));
    let (weights, decayed) = (weights.plain()?, decayed.ranges());
    each_real!(weights, T => write(weights, |weights: &mut [T]| {
        write(mean, |mean: &mut [T]| write(square, |square: &mut [T]| {
            let gradient = read(gradient);
            let step = AdamStep::<T>::new(adam, scale);
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

/// `square` moves towards the square of x = `gradient * scale` with decay `alpha`, then
/// `w -= rate * x / (sqrt(square) + epsilon)`. Tensors are (n), of the types of [`adam`].
pub fn rmsprop(
    rmsprop: &RmsProp,
    weights: Weights,
    square: &Tensor,
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[&weights.tensors()[..], &[square, gradient]].concat())?;
    on_gpu!(gradient => super::gpu::optimizer::rmsprop(rmsprop, weights, square, (gradient, scale)));
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

/// # Errors
/// If the tensors are not contiguous, or not of one length.
fn check_flat(tensors: &[&Tensor]) -> Result<()> {
    let lengths = tensors.iter().map(|x| x.elem_count());
    if tensors.iter().all(|x| x.is_contiguous())
        && lengths.clone().all(|n| Some(n) == lengths.clone().next())
    {
        return Ok(());
    }
    let lengths: Vec<usize> = lengths.collect();
    Err(Error::failed(format!(
        "optimizer buffers must be contiguous and of one length, not {lengths:?}"
    )))
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

/// The constants of one update, in the type of the weights.
pub(super) struct AdamStep<T> {
    pub(super) scale: T,
    pub(super) beta1: (T, T),
    pub(super) beta2: (T, T),
    pub(super) keep: T,
    pub(super) rate: T,
    pub(super) root: T,
    pub(super) epsilon: T,
}

impl<T: Real> AdamStep<T> {
    pub(super) fn new(adam: &Adam, scale: f64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(adam.step as f64);
        let decay = |beta: f64| (T::of(beta), T::of(1.0 - beta));
        Self {
            scale: T::of(scale),
            beta1: decay(adam.beta1),
            beta2: decay(adam.beta2),
            keep: T::of(1.0 - adam.rate * adam.weight_decay),
            rate: T::of(adam.rate / correction(adam.beta1)),
            root: T::of(correction(adam.beta2).sqrt().recip()),
            epsilon: T::of(adam.epsilon),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::{DType, Device};

    fn values(x: &Tensor) -> Vec<f64> {
        x.to_vec1().unwrap()
    }

    #[test]
    fn adam_follows_its_formula_over_several_steps() {
        let n = UNIT + 77;
        // Inside a unit, over its end, and at the very last element.
        let decayed = [3..5, UNIT - 2..UNIT + 40, n - 1..n];
        let marked = Decayed::new(decayed.to_vec(), &Device::Cpu).unwrap();
        let weights = variable(1, &[n]).as_tensor().copy().unwrap();
        let (mean, square) = (zeros_like(&weights), zeros_like(&weights));
        let (mut w, mut m, mut v) = (values(&weights), vec![0.0; n], vec![0.0; n]);
        for step in 1..=4u64 {
            let gradient = variable(step + 10, &[n]);
            let update = Adam {
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-3,
                rate: 0.1,
                weight_decay: 0.2,
                step,
            };
            adam(
                &update,
                &marked,
                Weights::Plain(&weights),
                (&mean, &square),
                (&gradient, 0.5),
            )
            .unwrap();
            for (i, g) in values(&gradient).iter().map(|g| g * 0.5).enumerate() {
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let mean = m[i] / (1.0 - 0.9f64.powi(step as i32));
                let square = v[i] / (1.0 - 0.99f64.powi(step as i32));
                let decays = decayed.iter().any(|range| range.contains(&i));
                let decay = if decays { 0.2 } else { 0.0 };
                w[i] -= 0.1 * (decay * w[i] + mean / (square.sqrt() + 1e-3));
            }
        }
        for (got, want) in values(&weights).iter().zip(w) {
            assert!((got - want).abs() < 1e-14, "{got} {want}");
        }
        assert!(
            values(&mean)
                .iter()
                .zip(m)
                .all(|(a, b)| (a - b).abs() < 1e-15)
        );
        assert!(
            values(&square)
                .iter()
                .zip(v)
                .all(|(a, b)| (a - b).abs() < 1e-15)
        );
    }

    #[test]
    fn rmsprop_follows_its_formula() {
        let n = UNIT + 3;
        let weights = variable(1, &[n]).as_tensor().copy().unwrap();
        let (gradient, square) = (variable(2, &[n]), zeros_like(&weights));
        let want: Vec<f64> = values(&weights)
            .iter()
            .zip(values(&gradient))
            .map(|(w, g)| w - 0.1 * 0.5 * g / ((0.01 * 0.25 * g * g).sqrt() + 1e-8))
            .collect();
        let update = RmsProp {
            alpha: 0.99,
            epsilon: 1e-8,
            rate: 0.1,
            step: 1,
        };
        rmsprop(&update, Weights::Plain(&weights), &square, (&gradient, 0.5)).unwrap();
        for (got, want) in values(&weights).iter().zip(want) {
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn f32_follows_f64() {
        let n = 1000;
        let run = |dtype: DType| {
            let make = |seed| {
                variable(seed, &[n])
                    .to_dtype(dtype)
                    .unwrap()
                    .copy()
                    .unwrap()
            };
            let (weights, gradient) = (make(1), make(2));
            let (mean, square) = (weights.zeros_like().unwrap(), weights.zeros_like().unwrap());
            let update = Adam {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                rate: 0.01,
                weight_decay: 0.1,
                step: 1,
            };
            let moments = (&mean, &square);
            let all = Decayed::new(std::iter::once(0..n).collect(), &Device::Cpu).unwrap();
            let plain = Weights::Plain(&weights);
            adam(&update, &all, plain, moments, (&gradient, 1.0)).unwrap();
            values(&weights.to_dtype(DType::F64).unwrap())
        };
        for (got, want) in run(DType::F32).iter().zip(run(DType::F64)) {
            assert!((got - want).abs() < 2e-7, "{got} {want}");
        }
    }

    #[test]
    fn buffers_of_other_lengths_or_types_are_refused() {
        let update = RmsProp {
            alpha: 0.99,
            epsilon: 1e-8,
            rate: 0.1,
            step: 1,
        };
        let (weights, square) = (variable(1, &[4]), variable(2, &[3]));
        let error =
            rmsprop(&update, Weights::Plain(&weights), &square, (&weights, 1.0)).unwrap_err();
        assert!(error.to_string().contains("[4, 3, 4]"), "{error}");
        let square = square.to_dtype(DType::F32).unwrap();
        let square = Tensor::cat(&[&square, &square.narrow(0, 0, 1).unwrap()], 0).unwrap();
        let gradient = zeros_like(&weights);
        assert!(rmsprop(&update, Weights::Plain(&weights), &square, (&gradient, 1.0)).is_err());
    }

    #[test]
    fn the_norm_sums_in_f64() {
        let x = Tensor::from_vec(vec![1e-4f32; 100_000], 100_000, &Device::Cpu).unwrap();
        let want = 100_000.0 * f64::from(1e-4f32).powi(2);
        assert!((squared_norm(&x).unwrap() - want).abs() < 1e-12 * want);
    }
}
