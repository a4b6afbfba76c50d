//! Layer norm and root-mean-square norm in host memory.

use std::borrow::Cow;

use candle_core::Tensor;
use rayon::prelude::*;

use super::elementwise::add;
use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::{sum, vectorized};
use crate::error::Result;
use crate::kernels::operands::norm::Norm;
use crate::kernels::tensor::{Dst, fresh, rows};

/// Elements per unit of parallel work. Gradients of weights are summed per unit, so that they do
/// not depend on the number of threads.
const UNIT: usize = 1 << 15;

/// The output and the statistics.
pub fn norm(
    x: &Tensor,
    norm: Norm,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let (count, width, _) = rows(x)?;
    // SAFETY: all of it is written below.
    let mut statistics = unsafe { fresh((count, 2), x)? };
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write((&mut statistics).into(), |statistics: &mut [T]| {
            let unit = rows_per_unit(width);
            let units = statistics.par_chunks_mut(2 * unit).zip(x.par_chunks(unit * width));
            let (centered, epsilon) = (norm.centered(), T::of(norm.epsilon()));
            units.for_each(|(out, x)| measure(out, x, width, centered, epsilon));
            Ok(())
        })
    })?;
    Ok((output((norm, x, &statistics), weight, bias)?, statistics))
}

pub fn output(
    (norm, x, statistics): (Norm, &Tensor, &Tensor),
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (_, width, _) = rows(x)?;
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh(x.shape(), x)? };
    each_real!(x, T => {
        let (x, statistics, weight) = (read(x), read(statistics), read(weight));
        let (x, statistics) = (x.values::<T>()?, statistics.values::<T>()?);
        let weight = &*factors(norm, weight.values::<T>()?);
        let bias = bias.map(read);
        let none = vec![T::ZERO; width];
        let bias = match &bias {
            Some(bias) => bias.values::<T>()?,
            None => &none,
        };
        write((&mut y).into(), |y: &mut [T]| {
            let unit = rows_per_unit(width);
            let inputs = x.par_chunks(unit * width).zip(statistics.par_chunks(2 * unit));
            let units = y.par_chunks_mut(unit * width).zip(inputs);
            units.for_each(|(y, (x, statistics))| scale(y, x, statistics, weight, bias));
            Ok(())
        })
    })?;
    Ok(y)
}

pub fn backward(
    dy: &Tensor,
    (norm, x, statistics): (Norm, &Tensor, &Tensor),
    weight: &Tensor,
    (dweight, dbias): (Option<Dst>, Option<Dst>),
    dx: Dst,
) -> Result<()> {
    let (_, width, _) = rows(x)?;
    let wanted = dweight.is_some() || dbias.is_some();
    each_real!(dy, T => {
        let (x, statistics, weight) = (read(x), read(statistics), read(weight));
        let (x, statistics) = (x.values::<T>()?, statistics.values::<T>()?);
        let weight = &*factors(norm, weight.values::<T>()?);
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
        let accumulate = |into: Option<Dst>, sums: &[T]| match into {
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

/// What a normalized row is multiplied by.
fn factors<T: Real>(norm: Norm, weight: &[T]) -> Cow<'_, [T]> {
    match norm.plus_one() {
        true => Cow::Owned(weight.iter().map(|&weight| T::ONE + weight).collect()),
        false => Cow::Borrowed(weight),
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
