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

/// What the backward pass needs: the input and two numbers per row of it.
#[derive(Debug)]
pub struct Saved {
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

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias` of contiguous `x` (.., hidden). A bias
/// means layer norm (Ba et al. 2016), none means RMS norm (Zhang and Sennrich 2019), which does not
/// subtract the mean.
pub fn norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epsilon: f64,
) -> Result<(Tensor, Saved)> {
    let _profile = part(Part::Elementwise);
    let (count, width, _) = shape(x)?;
    check_widths(width, [weight].into_iter().chain(bias))?;
    on_gpu!(x => {
        let (y, statistics) = super::gpu::norm::norm(x, weight, bias, epsilon)?;
        Ok((y, Saved { x: x.clone(), statistics }))
    });
    // SAFETY: all of it is written below.
    let statistics = unsafe { fresh((count, 2), x)? };
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write(&statistics, |statistics: &mut [T]| {
            let unit = rows_per_unit(width);
            let units = statistics.par_chunks_mut(2 * unit).zip(x.par_chunks(unit * width));
            units.for_each(|(out, x)| measure(out, x, width, bias.is_some(), T::of(epsilon)));
            Ok(())
        })
    })?;
    let saved = Saved {
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
    let Saved { x, statistics } = saved;
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

/// Adds the gradients of weight and bias to `dweight` and `dbias`, and that of the input to `dx`
/// (.., hidden), which is contiguous as `dy` is.
pub fn backward(
    dy: &Tensor,
    saved: &Saved,
    weight: &Tensor,
    dweight: &Tensor,
    dbias: Option<&Tensor>,
    dx: &Tensor,
) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let (_, width, _) = shape(&saved.x)?;
    check_alike("norm", &[&saved.x, dy, dx])?;
    check_widths(width, [weight, dweight].into_iter().chain(dbias))?;
    let Saved { x, statistics } = saved;
    on_gpu!(dy => super::gpu::norm::backward(dy, (x, statistics), weight, dweight, dbias, dx));
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
                let mut sums = vec![T::ZERO; 2 * width];
                differentiate(dx, &mut sums, dy, x, statistics, weight, dbias.is_some());
                sums
            });
            Ok(parts.collect())
        })?;
        let mut total = vec![T::ZERO; 2 * width];
        parts.iter().for_each(|part| add(&mut total, part));
        let accumulate = |into: &Tensor, sums: &[T]| {
            write(into, |values: &mut [T]| {
                add(values, sums);
                Ok(())
            })
        };
        accumulate(dweight, &total[..width])?;
        match dbias {
            Some(dbias) => accumulate(dbias, &total[width..]),
            None => Ok(()),
        }
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
    /// `sums`: those of `dy * normalized`, then those of `dy`, by column.
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
        let (dweight, dbias) = sums.split_at_mut(width);
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
                dweight[i] += dy[i] * *normalized;
                dbias[i] += dy[i];
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
            let bias = centered.then_some(b.as_tensor());
            let (got, saved) = norm(&x, &w, bias, 1e-5).unwrap();
            assert_close(&got, &want, "forward");
            assert_close(&output(&saved, &w, bias).unwrap(), &want, "output again");
            let variables = [&x, &w, &b];
            let grads = autograd(&want, &seed, &variables[..2 + usize::from(centered)]);
            let (dw, db) = (zeros_like(&w), zeros_like(&b));
            let dx = x.as_tensor().copy().unwrap();
            backward(&seed, &saved, &w, &dw, centered.then_some(&db), &dx).unwrap();
            assert_close(&(dx - x.as_tensor()).unwrap(), &grads[0], "dx");
            assert_close(&dw, &grads[1], "dw");
            if centered {
                assert_close(&db, &grads[2], "db");
            }

            let [x, w, b, seed] = [&x, &w, &b, &seed].map(|x| x.to_dtype(DType::F32).unwrap());
            let bias = centered.then_some(&b);
            let (got, saved) = norm(&x, &w, bias, 1e-5).unwrap();
            assert_near(&got, &want, 3e-6, "f32 forward");
            let [dx, dw, db] = [&x, &w, &b].map(|x| x.zeros_like().unwrap());
            backward(&seed, &saved, &w, &dw, centered.then_some(&db), &dx).unwrap();
            assert_near(&dx, &grads[0], 3e-6, "f32 dx");
            assert_near(&dw, &grads[1], 3e-6, "f32 dw");
        }
    }
}
