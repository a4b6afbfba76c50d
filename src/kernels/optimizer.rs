//! Optimizer updates over flat buffers, in place, element by element.

use candle_core::{CpuStorage, CustomOp1, InplaceOp2, InplaceOp3, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::error::Result;

/// Elements per unit of parallel work; sums are taken per unit, so that they do not depend on the
/// number of threads.
const UNIT: usize = 1 << 14;

/// Adam's running averages, Kingma and Ba 2015, algorithm 1.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root.
    pub epsilon: f64,
}

/// The sum of squares of a contiguous tensor, accumulated in f64.
pub fn squared_norm(x: &Tensor) -> Result<f64> {
    Ok(x.apply_op1_no_bwd(&SquaredNorm)?.to_scalar::<f64>()?)
}

/// Moves the averages `mean` and `square` (n) towards `gradient * scale` (n).
pub fn adam_moments(
    adam: Adam,
    mean: &Tensor,
    square: &Tensor,
    gradient: &Tensor,
    scale: f64,
) -> Result<()> {
    mean.inplace_op2(
        gradient,
        &Average {
            decay: adam.beta1,
            scale,
            squared: false,
        },
    )?;
    Ok(square.inplace_op2(
        gradient,
        &Average {
            decay: adam.beta2,
            scale,
            squared: true,
        },
    )?)
}

/// `w -= rate * (decay * w + mean' / (sqrt(square') + epsilon))`, where the primes are the
/// averages without their bias towards zero after `step` updates, from 1.
pub fn adam_update(
    adam: Adam,
    weights: &Tensor,
    mean: &Tensor,
    square: &Tensor,
    (rate, decay, step): (f64, f64, u64),
) -> Result<()> {
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    let update = Update {
        keep: 1.0 - rate * decay,
        rate: rate / correction(adam.beta1),
        root: correction(adam.beta2).sqrt().recip(),
        epsilon: adam.epsilon,
    };
    Ok(weights.inplace_op3(mean, square, &update)?)
}

/// RMSprop as in the official DPO repository: `square` moves towards the squared gradient with
/// decay `alpha`, then `w -= rate * gradient * scale / (sqrt(square) + epsilon)`.
pub fn rmsprop(
    weights: &Tensor,
    square: &Tensor,
    gradient: &Tensor,
    scale: f64,
    (rate, alpha, epsilon): (f64, f64, f64),
) -> Result<()> {
    square.inplace_op2(
        gradient,
        &Average {
            decay: alpha,
            scale,
            squared: true,
        },
    )?;
    let update = Update {
        keep: 1.0,
        rate: rate * scale,
        root: 1.0,
        epsilon,
    };
    Ok(weights.inplace_op3(gradient, square, &update)?)
}

struct SquaredNorm;

impl CustomOp1 for SquaredNorm {
    fn name(&self) -> &'static str {
        "squared-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn sum<T: Copy + Into<f64> + Sync>(x: &[T]) -> f64 {
            let unit = |unit: &[T]| unit.iter().map(|&x| x.into() * x.into()).sum::<f64>();
            x.par_chunks(UNIT)
                .map(unit)
                .collect::<Vec<f64>>()
                .iter()
                .sum()
        }
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("squared-norm: the tensor must be contiguous")
        };
        let total = match x {
            CpuStorage::F32(x) => sum(&x[start..end]),
            CpuStorage::F64(x) => sum(&x[start..end]),
            _ => bail!("squared-norm: f32 or f64"),
        };
        Ok((CpuStorage::F64(vec![total]), Shape::from(())))
    }
}

/// `average = decay * average + (1 - decay) * (x or x^2)` with x = source * scale.
struct Average {
    decay: f64,
    scale: f64,
    squared: bool,
}

impl InplaceOp2 for Average {
    fn name(&self) -> &'static str {
        "running-average"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        average_layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (a, s) = (offsets(average_layout)?, offsets(source_layout)?);
        macro_rules! run {
            ($type:ty, $average:expr, $source:expr) => {{
                let (decay, scale) = (self.decay as $type, self.scale as $type);
                let fresh = (1.0 - self.decay) as $type;
                let units = $average[a.0..a.1].par_chunks_mut(UNIT);
                units
                    .zip($source[s.0..s.1].par_chunks(UNIT))
                    .for_each(|(average, source)| {
                        for (a, s) in average.iter_mut().zip(source) {
                            let x = s * scale;
                            *a = decay * *a + fresh * if self.squared { x * x } else { x };
                        }
                    })
            }};
        }
        match (average, source) {
            (CpuStorage::F32(a), CpuStorage::F32(s)) => run!(f32, a, s),
            (CpuStorage::F64(a), CpuStorage::F64(s)) => run!(f64, a, s),
            _ => bail!("running-average: f32 or f64, the same on both sides"),
        }
        Ok(())
    }
}

/// `w = keep * w - rate * direction / (root * sqrt(square) + epsilon)`.
struct Update {
    keep: f64,
    rate: f64,
    root: f64,
    epsilon: f64,
}

impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "weight-update"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        direction: &CpuStorage,
        direction_layout: &Layout,
        square: &CpuStorage,
        square_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (w, d, v) = (
            offsets(weights_layout)?,
            offsets(direction_layout)?,
            offsets(square_layout)?,
        );
        macro_rules! run {
            ($type:ty, $weights:expr, $direction:expr, $square:expr) => {{
                let (keep, rate) = (self.keep as $type, self.rate as $type);
                let (root, epsilon) = (self.root as $type, self.epsilon as $type);
                let moments = $direction[d.0..d.1]
                    .par_chunks(UNIT)
                    .zip($square[v.0..v.1].par_chunks(UNIT));
                let units = $weights[w.0..w.1].par_chunks_mut(UNIT);
                units
                    .zip(moments)
                    .for_each(|(weights, (direction, square))| {
                        for ((w, d), v) in weights.iter_mut().zip(direction).zip(square) {
                            *w = keep * *w - rate * (d / (root * v.sqrt() + epsilon));
                        }
                    })
            }};
        }
        match (weights, direction, square) {
            (CpuStorage::F32(w), CpuStorage::F32(d), CpuStorage::F32(v)) => run!(f32, w, d, v),
            (CpuStorage::F64(w), CpuStorage::F64(d), CpuStorage::F64(v)) => run!(f64, w, d, v),
            _ => bail!("weight-update: f32 or f64, the same everywhere"),
        }
        Ok(())
    }
}

fn offsets(layout: &Layout) -> candle_core::Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(offsets) => Ok(offsets),
        None => bail!("optimizer buffers must be contiguous"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;

    fn values(x: &Tensor) -> Vec<f64> {
        x.to_vec1().unwrap()
    }

    #[test]
    fn adam_follows_its_formula_over_several_steps() {
        let adam = Adam {
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-3,
        };
        let weights = variable(1, &[5]).as_tensor().copy().unwrap();
        let (mean, square) = (zeros_like(&weights), zeros_like(&weights));
        let (mut w, mut m, mut v) = (values(&weights), [0.0; 5], [0.0; 5]);
        for step in 1..=4u64 {
            let gradient = variable(step + 10, &[5]);
            adam_moments(adam, &mean, &square, &gradient, 0.5).unwrap();
            adam_update(adam, &weights, &mean, &square, (0.1, 0.2, step)).unwrap();
            for (i, g) in values(&gradient).iter().map(|g| g * 0.5).enumerate() {
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let mean = m[i] / (1.0 - 0.9f64.powi(step as i32));
                let square = v[i] / (1.0 - 0.99f64.powi(step as i32));
                w[i] -= 0.1 * (0.2 * w[i] + mean / (square.sqrt() + 1e-3));
            }
        }
        for (got, want) in values(&weights).iter().zip(w) {
            assert!((got - want).abs() < 1e-14, "{got} {want}");
        }
    }

    #[test]
    fn rmsprop_follows_its_formula() {
        let weights = variable(1, &[3]).as_tensor().copy().unwrap();
        let (gradient, square) = (variable(2, &[3]), zeros_like(&weights));
        let want: Vec<f64> = values(&weights)
            .iter()
            .zip(values(&gradient))
            .map(|(w, g)| w - 0.1 * 0.5 * g / ((0.01 * 0.25 * g * g).sqrt() + 1e-8))
            .collect();
        rmsprop(&weights, &square, &gradient, 0.5, (0.1, 0.99, 1e-8)).unwrap();
        for (got, want) in values(&weights).iter().zip(want) {
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn the_norm_sums_in_f64() {
        let x =
            Tensor::from_vec(vec![1e-4f32; 100_000], 100_000, &candle_core::Device::Cpu).unwrap();
        let want = 100_000.0 * f64::from(1e-4f32).powi(2);
        assert!((squared_norm(&x).unwrap() - want).abs() < 1e-12 * want);
    }
}
