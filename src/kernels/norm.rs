//! Layer norm and root-mean-square norm over the last dimension.

use candle_core::Tensor;
use rayon::prelude::*;

use super::cpu::{check_alike, each_real, fresh, read, rows, write};
use super::elementwise::add;
use super::profile::{Part, part};
use super::real::Real;
use super::simd::{sum, vectorized};
use crate::error::{Error, Result};

/// Elements per unit of parallel work. Gradients of weights are summed per unit, so that they do
/// not depend on the number of threads.
const UNIT: usize = 1 << 15;

/// A norm over the last dimension.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `(x - mean) / sqrt(variance + epsilon) * weight + bias`, Ba et al. 2016.
    LayerNorm {
        /// Added to the variance.
        epsilon: f64,
    },
    /// `x / sqrt(mean of squares + epsilon) * weight + bias`, Zhang and Sennrich 2019, whose norm has
    /// no bias.
    Rms {
        /// Added to the mean of squares.
        epsilon: f64,
    },
}

impl Norm {
    pub(super) fn epsilon(self) -> f64 {
        match self {
            Self::LayerNorm { epsilon } | Self::Rms { epsilon } => epsilon,
        }
    }

    /// Whether the mean is subtracted.
    pub(super) fn centered(self) -> bool {
        match self {
            Self::LayerNorm { .. } => true,
            Self::Rms { .. } => false,
        }
    }
}

/// What the backward pass needs: the input and two numbers per row of it.
#[derive(Debug)]
pub struct Saved {
    norm: Norm,
    /// (.., hidden).
    x: Tensor,
    /// (rows, 2): the mean, 0 in RMS norm, and `1 / sqrt(variance + epsilon)`.
    statistics: Tensor,
}

#[cfg(test)]
impl Saved {
    pub(crate) fn tensors(&self) -> [&Tensor; 2] {
        [&self.x, &self.statistics]
    }
}

/// The norm of contiguous `x` (.., hidden), with `weight` and `bias` (hidden).
///
/// # Errors
/// If shapes do not fit, or there is no kernel for the dtypes.
pub fn norm(
    x: &Tensor,
    norm: Norm,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Saved)> {
    let _profile = part(Part::Elementwise);
    let (count, width, _) = shape(x)?;
    check_widths(width, [weight].into_iter().chain(bias))?;
    on_gpu!(x => {
        let (y, statistics) = super::gpu::norm::norm(x, norm, weight, bias)?;
        Ok((y, Saved { norm, x: x.clone(), statistics }))
    });
    // SAFETY: all of it is written below.
    let statistics = unsafe { fresh((count, 2), x)? };
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write(&statistics, |statistics: &mut [T]| {
            let unit = rows_per_unit(width);
            let units = statistics.par_chunks_mut(2 * unit).zip(x.par_chunks(unit * width));
            let (centered, epsilon) = (norm.centered(), T::of(norm.epsilon()));
            units.for_each(|(out, x)| measure(out, x, width, centered, epsilon));
            Ok(())
        })
    })?;
    let saved = Saved {
        norm,
        x: x.clone(),
        statistics,
    };
    Ok((output(&saved, weight, bias)?, saved))
}

/// The output once more, from what was saved: cheaper than keeping it.
pub fn output(saved: &Saved, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let (_, width, _) = shape(&saved.x)?;
    check_widths(width, [weight].into_iter().chain(bias))?;
    let Saved { x, statistics, .. } = saved;
    on_gpu!(x => super::gpu::norm::output(x, statistics, weight, bias));
    // SAFETY: all of it is written below.
    let y = unsafe { fresh(x.shape(), x)? };
    each_real!(y, T => {
        let (x, statistics, weight) = (read(x), read(statistics), read(weight));
        let (x, statistics) = (x.values::<T>()?, statistics.values::<T>()?);
        let weight = weight.values::<T>()?;
        let bias = bias.map(read);
        let none = vec![T::ZERO; width];
        let bias = match &bias {
            Some(bias) => bias.values::<T>()?,
            None => &none,
        };
        write(&y, |y: &mut [T]| {
            let unit = rows_per_unit(width);
            let inputs = x.par_chunks(unit * width).zip(statistics.par_chunks(2 * unit));
            let units = y.par_chunks_mut(unit * width).zip(inputs);
            units.for_each(|(y, (x, statistics))| scale(y, x, statistics, weight, bias));
            Ok(())
        })
    })?;
    Ok(y)
}

/// Adds the gradients of weight and bias to `dweight` and `dbias` where these are wanted, and that of
/// the input to `dx` (.., hidden), which is contiguous as `dy` is.
///
/// # Errors
/// If shapes do not fit, or there is no kernel for the dtypes.
pub fn backward(
    dy: &Tensor,
    saved: &Saved,
    weight: &Tensor,
    (dweight, dbias): (Option<&Tensor>, Option<&Tensor>),
    dx: &Tensor,
) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let (_, width, _) = shape(&saved.x)?;
    check_alike("norm", &[&saved.x, dy, dx])?;
    check_widths(width, [weight].into_iter().chain(dweight).chain(dbias))?;
    let Saved {
        norm,
        x,
        statistics,
    } = saved;
    on_gpu!(dy => {
        let saved = (norm.centered(), x, statistics);
        super::gpu::norm::backward(dy, saved, weight, (dweight, dbias), dx)
    });
    let wanted = dweight.is_some() || dbias.is_some();
    each_real!(dy, T => {
        let (x, statistics, weight) = (read(x), read(statistics), read(weight));
        let (x, statistics) = (x.values::<T>()?, statistics.values::<T>()?);
        let weight = weight.values::<T>()?;
        let dy = read(dy);
        let dy = dy.values::<T>()?;
        let unit = rows_per_unit(width);
        let parts: Vec<Vec<T>> = write(dx, |dx: &mut [T]| {
            let inputs = x.par_chunks(unit * width).zip(statistics.par_chunks(2 * unit));
            let units = dx.par_chunks_mut(unit * width).zip(dy.par_chunks(unit * width));
            let parts = units.zip(inputs).map(|((dx, dy), (x, statistics))| {
                let mut sums = vec![T::ZERO; if wanted { 2 * width } else { 0 }];
                differentiate(dx, &mut sums, dy, x, statistics, weight, norm.centered());
                sums
            });
            Ok(parts.collect())
        })?;
        if !wanted {
            return Ok(());
        }
        let mut total = vec![T::ZERO; 2 * width];
        parts.iter().for_each(|part| add(&mut total, part));
        let accumulate = |into: Option<&Tensor>, sums: &[T]| match into {
            None => Ok(()),
            Some(into) => write(into, |values: &mut [T]| {
                add(values, sums);
                Ok(())
            }),
        };
        accumulate(dweight, &total[..width])?;
        accumulate(dbias, &total[width..])
    })
}

fn shape(x: &Tensor) -> Result<(usize, usize, usize)> {
    match x.is_contiguous() {
        true => rows(x),
        false => Err(Error::failed("norm: its operands must be contiguous")),
    }
}

fn check_widths<'a>(width: usize, weights: impl Iterator<Item = &'a Tensor>) -> Result<()> {
    match weights.map(Tensor::elem_count).find(|&len| len != width) {
        Some(len) => Err(Error::failed(format!(
            "norm: weights of {len} for rows of {width}"
        ))),
        None => Ok(()),
    }
}

fn rows_per_unit(width: usize) -> usize {
    (UNIT / width).max(1)
}

vectorized! {
    fn measure<T: Real>(out: &mut [T], x: &[T], width: usize, centered: bool, epsilon: T) {
        let share = T::of(1.0 / width as f64);
        for (out, x) in out.chunks_exact_mut(2).zip(x.chunks_exact(width)) {
            let mean = if centered { sum(x, x, |x, _| x) * share } else { T::ZERO };
            let variance = sum(x, x, |x, _| (x - mean) * (x - mean)) * share;
            out[0] = mean;
            out[1] = T::ONE / (variance + epsilon).root();
        }
    }
}

vectorized! {
    fn scale<T: Real>(y: &mut [T], x: &[T], statistics: &[T], weight: &[T], bias: &[T]) {
        let width = weight.len();
        let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((y, x), statistics) in rows.zip(statistics.chunks_exact(2)) {
            let (mean, inverse) = (statistics[0], statistics[1]);
            let terms = x.iter().zip(weight).zip(bias);
            for (y, ((&x, &weight), &bias)) in y.iter_mut().zip(terms) {
                *y = (x - mean) * inverse * weight + bias;
            }
        }
    }
}

vectorized! {
    /// `sums`: those of `dy * normalized`, then those of `dy`, by column; empty where not wanted.
    fn differentiate<T: Real>(
        dx: &mut [T],
        sums: &mut [T],
        dy: &[T],
        x: &[T],
        statistics: &[T],
        weight: &[T],
        centered: bool,
    ) {
        let width = weight.len();
        let share = T::of(1.0 / width as f64);
        let (dweight, dbias) = sums.split_at_mut(sums.len() / 2);
        let mut normalized = vec![T::ZERO; width];
        let mut g = vec![T::ZERO; width];
        let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width));
        for ((dx, dy), (x, statistics)) in
            rows.zip(x.chunks_exact(width).zip(statistics.chunks_exact(2)))
        {
            let (mean, inverse) = (statistics[0], statistics[1]);
            for (i, (normalized, g)) in normalized.iter_mut().zip(&mut g).enumerate() {
                *normalized = (x[i] - mean) * inverse;
                *g = dy[i] * weight[i];
            }
            let sums = dweight.iter_mut().zip(dbias.iter_mut());
            for ((dweight, dbias), (&dy, &normalized)) in sums.zip(dy.iter().zip(&normalized)) {
                *dweight += dy * normalized;
                *dbias += dy;
            }
            let along = sum(&g, &normalized, |g, n| g * n) * share;
            let shift = if centered { sum(&g, &g, |g, _| g) * share } else { T::ZERO };
            for ((dx, &g), &normalized) in dx.iter_mut().zip(&g).zip(&normalized) {
                *dx += (g - normalized * along - shift) * inverse;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::DType;

    /// candle-nn's slow norms are independent of ours and differentiable.
    #[test]
    fn forward_and_backward_equal_the_slow_norms_of_candle_nn() {
        for (shape, centered) in [
            (&[5, 7][..], true),
            (&[5, 7], false),
            (&[4, 3, 7], true),
            (&[4, 3, 7], false),
            (&[1, 3], false),
            (&[600, 129], true),
            (&[600, 129], false),
        ] {
            let width = shape[shape.len() - 1];
            let (w, b) = (variable(2, &[width]), variable(3, &[width]));
            let (x, seed) = (variable(1, shape), variable(4, shape));
            let want = if centered {
                candle_nn::ops::layer_norm_slow(&x, &w, &b, 1e-5).unwrap()
            } else {
                candle_nn::ops::rms_norm_slow(&x, &w, 1e-5).unwrap()
            };
            let kind = match centered {
                true => Norm::LayerNorm { epsilon: 1e-5 },
                false => Norm::Rms { epsilon: 1e-5 },
            };
            let bias = centered.then_some(b.as_tensor());
            let (got, saved) = norm(&x, kind, &w, bias).unwrap();
            assert_close(&got, &want, "forward");
            assert_close(&output(&saved, &w, bias).unwrap(), &want, "output again");
            let variables = [&x, &w, &b];
            let grads = autograd(&want, &seed, &variables[..2 + usize::from(centered)]);
            let (dw, db) = (zeros_like(&w), zeros_like(&b));
            let dx = x.as_tensor().copy().unwrap();
            let into = (Some(&dw), centered.then_some(&db));
            backward(&seed, &saved, &w, into, &dx).unwrap();
            let alone = x.as_tensor().copy().unwrap();
            backward(&seed, &saved, &w, (None, None), &alone).unwrap();
            assert_close(&alone, &dx, "dx alone");
            assert_close(&(dx - x.as_tensor()).unwrap(), &grads[0], "dx");
            assert_close(&dw, &grads[1], "dw");
            if centered {
                assert_close(&db, &grads[2], "db");
            }

            let [x, w, b, seed] = [&x, &w, &b, &seed].map(|x| x.to_dtype(DType::F32).unwrap());
            let bias = centered.then_some(&b);
            let (got, saved) = norm(&x, kind, &w, bias).unwrap();
            assert_near(&got, &want, 3e-6, "f32 forward");
            let [dx, dw, db] = [&x, &w, &b].map(|x| x.zeros_like().unwrap());
            let into = (Some(&dw), centered.then_some(&db));
            backward(&seed, &saved, &w, into, &dx).unwrap();
            assert_near(&dx, &grads[0], 3e-6, "f32 dx");
            assert_near(&dw, &grads[1], 3e-6, "f32 dw");
        }
    }
}
