//! Statistics of rows of logits and their gradient, in host memory.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::{LANES, vectorized};
use super::softmax;
use crate::error::{Error, Result};
use crate::kernels::operands::token::TokenStatistics;
use crate::kernels::tensor::Dst;

/// Logits whose sums are kept in the logits' own precision before they are added to f64.
const BLOCK: usize = 16 * LANES;

/// Elements per unit of parallel work.
const UNIT: usize = 1 << 14;

/// How far below the largest logit all probabilities are 0: -inf times 0 would be NaN.
const FAR_BELOW: f64 = -1e4;

/// Each logit z becomes `cap tanh(scale z / cap)`.
pub fn soft_cap(logits: Dst, scale: f64, cap: f64) -> Result<()> {
    each_real!(logits, T => write(logits, |logits: &mut [T]| {
        let units = logits.par_chunks_mut(UNIT);
        units.for_each(|unit| softmax::soft_cap(unit, T::of(scale), T::of(cap)));
        Ok(())
    }))
}

pub fn statistics(logits: &Tensor, labels: &Tensor) -> Result<Vec<TokenStatistics>> {
    let (_, vocabulary) = logits.dims2()?;
    let labels = read(labels);
    let labels = checked(labels.ids()?, logits)?;
    each_real!(logits, T => {
        let logits = read(logits);
        let rows = logits.values::<T>()?.par_chunks_exact(vocabulary);
        Ok(rows.zip(labels).map(|(row, &label)| of_row(row, label as usize)).collect())
    })
}

/// In place: the dtype is that of the logits.
pub fn backward(
    mut logits: Tensor,
    labels: &Tensor,
    (log_sum_exp, seeds): (&[f64], &[f64]),
    softcap: Option<f64>,
    dtype: DType,
) -> Result<Tensor> {
    if dtype != logits.dtype() {
        return Err(Error::failed(format!(
            "the gradient of {:?} logits as {dtype:?}",
            logits.dtype()
        )));
    }
    let (_, vocabulary) = logits.dims2()?;
    let labels = read(labels);
    let labels = checked(labels.ids()?, &logits)?;
    each_real!(logits, T => write((&mut logits).into(), |logits: &mut [T]| {
        let numbers = labels.par_iter().zip(log_sum_exp).zip(seeds);
        let rows = logits.par_chunks_exact_mut(vocabulary).zip(numbers);
        rows.for_each(|(row, ((&label, &sum), &seed))| match softcap {
            None => gradient(row, label as usize, sum, seed),
            Some(cap) => {
                let mut slopes = vec![T::ZERO; vocabulary];
                softmax::cap_slopes(&mut slopes, row, T::of(cap));
                gradient(row, label as usize, sum, seed);
                softmax::multiply(row, &slopes);
            }
        });
        Ok(())
    }))?;
    Ok(logits)
}

/// The labels, each of them a column, one for every row.
fn checked<'a>(labels: &'a [u32], logits: &Tensor) -> Result<&'a [u32]> {
    let (n, vocabulary) = logits.dims2()?;
    if labels.len() == n && labels.iter().all(|&label| (label as usize) < vocabulary) {
        return Ok(labels);
    }
    Err(Error::failed(format!(
        "logits ({n}, {vocabulary}) take {n} labels below {vocabulary}"
    )))
}

fn of_row<T: Real>(row: &[T], label: usize) -> TokenStatistics {
    let (max, at_label) = (largest(row), row[label]);
    let [sum, weighted, squares] = sums(row, max);
    // The maximum passes over NaN; a NaN anywhere must reach the caller, and `sum` carries it.
    let log_sum_exp = max.wide() + sum.ln();
    TokenStatistics {
        log_sum_exp,
        log_prob: at_label.wide() - log_sum_exp,
        entropy: sum.ln() - weighted / sum,
        correct: at_label >= max,
        log_collision: squares.ln() - 2.0 * sum.ln(),
    }
}

fn gradient<T: Real>(row: &mut [T], label: usize, log_sum_exp: f64, seed: f64) {
    // What is lost by rounding the sum is put back by a factor, as it would be the same everywhere.
    let shift = T::of(log_sum_exp);
    let rest = (shift.wide() - log_sum_exp).exp();
    let probability = (row[label] - shift).exp().wide() * rest;
    scaled_exp(row, shift, T::of(-seed * rest));
    row[label] = T::of(seed * (1.0 - probability));
}

vectorized! {
fn largest<T: Real>(row: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let (groups, rest) = row.as_chunks::<LANES>();
    for group in groups {
        for (max, z) in lanes.iter_mut().zip(group) {
            *max = max.larger(*z);
        }
    }
    lanes.iter().chain(rest).fold(T::NEG_INFINITY, |max, z| max.larger(*z))
}
}

vectorized! {
/// The sums of e = exp(z - max), of e (z - max) and of e^2.
fn sums<T: Real>(row: &[T], max: T) -> [f64; 3] {
    let mut totals = [0.0; 3];
    for block in row.chunks(BLOCK) {
        let mut lanes = [[T::ZERO; LANES]; 3];
        let (groups, rest) = block.as_chunks::<LANES>();
        for group in groups {
            for (lane, z) in group.iter().enumerate() {
                add_terms(&mut lanes, lane, *z - max);
            }
        }
        for (lane, z) in rest.iter().enumerate() {
            add_terms(&mut lanes, lane, *z - max);
        }
        for (total, lanes) in totals.iter_mut().zip(&lanes) {
            *total += lanes.iter().map(|sum| sum.wide()).sum::<f64>();
        }
    }
    totals
}
}

#[inline(always)]
fn add_terms<T: Real>([sums, weighted, squares]: &mut [[T; LANES]; 3], lane: usize, below: T) {
    let far = T::of(FAR_BELOW);
    let below = if below < far { far } else { below };
    let e = below.exp();
    sums[lane] += e;
    weighted[lane] += e * below;
    squares[lane] += e * e;
}

vectorized! {
fn scaled_exp<T: Real>(row: &mut [T], shift: T, factor: T) {
    for z in row {
        *z = factor * (*z - shift).exp();
    }
}
}
