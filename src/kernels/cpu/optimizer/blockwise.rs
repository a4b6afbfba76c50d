//! Adam over moments in 8 bits: a block is decoded, updated and coded again while it is in the cache.

use candle_core::Tensor;
use rayon::prelude::*;

use super::{UNIT, adam_element};
use crate::error::Result;
use crate::kernels::cpu::host::{each_real, read, write};
use crate::kernels::cpu::real::Real;
use crate::kernels::cpu::simd::{LANES, vectorized};
use crate::kernels::operands::blockwise::{BLOCK, Coded, SIGNED, Table, UNSIGNED};
use crate::kernels::operands::optimizer::{Adam, AdamStep, Weights};

/// Moments of a unit: codes, and an `absmax` per block.
struct Moment<'a> {
    table: &'static Table,
    codes: &'a mut [u8],
    absmax: &'a mut [f32],
}

pub fn adam_8bit(
    adam: &Adam,
    decays: bool,
    weights: Weights,
    [mean, square]: [Coded; 2],
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let weights = weights.plain()?;
    each_real!(weights, T => write(weights, |weights: &mut [T]| {
        written(mean, |mean| written(square, |square| {
            let gradient = read(gradient);
            let step = AdamStep::new(adam, scale).map(T::of);
            let keep = if decays { step.keep } else { T::ONE };
            let moments = units(mean, &SIGNED).zip(units(square, &UNSIGNED));
            let units = moments.zip(gradient.values::<T>()?.par_chunks(UNIT));
            let units = weights.par_chunks_mut(UNIT).zip(units);
            units.for_each(|(w, ((mut m, mut v), g))| unit(&step, keep, w, &mut m, &mut v, g));
            Ok(())
        }))
    }))
}

/// Lets `f` write codes and the `absmax` of each block.
fn written<R>(coded: Coded, f: impl FnOnce((&mut [u8], &mut [f32])) -> Result<R>) -> Result<R> {
    write(coded.codes, |codes: &mut [u8]| {
        write(coded.absmax, |absmax: &mut [f32]| f((codes, absmax)))
    })
}

fn units<'a>(
    (codes, absmax): (&'a mut [u8], &'a mut [f32]),
    table: &'static Table,
) -> impl IndexedParallelIterator<Item = Moment<'a>> {
    let absmax = absmax.par_chunks_mut(UNIT / BLOCK);
    let units = codes.par_chunks_mut(UNIT).zip(absmax);
    units.map(move |(codes, absmax)| Moment {
        table,
        codes,
        absmax,
    })
}

impl Moment<'_> {
    /// The numbers of a block; 0 behind the last one.
    #[inline(always)]
    fn decode<T: Real>(&self, block: usize) -> [T; BLOCK] {
        let mut values = [T::ZERO; BLOCK];
        let absmax = self.absmax[block];
        let codes = &self.codes[block * BLOCK..];
        for (value, code) in values.iter_mut().zip(codes) {
            *value = T::of(f64::from(self.table.map[usize::from(*code)] * absmax));
        }
        values
    }

    #[inline(always)]
    fn encode<T: Real>(&mut self, block: usize, values: &[T; BLOCK]) {
        let values = values.map(|x| x.wide() as f32);
        let absmax = largest(&values);
        self.absmax[block] = absmax;
        // Of nothing but zeros the quotients would be NaN.
        let divisor = if absmax == 0.0 { 1.0 } else { absmax };
        let quotients = values.map(|x| x / divisor);
        let codes = self.codes[block * BLOCK..].iter_mut();
        for (code, x) in codes.zip(quotients) {
            *code = self.table.code(x);
        }
    }
}

#[inline(always)]
fn largest(values: &[f32; BLOCK]) -> f32 {
    let mut lanes = [0f32; LANES];
    for group in values.as_chunks::<LANES>().0 {
        for (most, x) in lanes.iter_mut().zip(group) {
            *most = most.larger(x.abs());
        }
    }
    lanes.into_iter().fold(0.0, Real::larger)
}

vectorized! {
fn unit<T: Real>(
    step: &AdamStep<T>,
    keep: T,
    weights: &mut [T],
    mean: &mut Moment<'_>,
    square: &mut Moment<'_>,
    gradient: &[T],
) {
    let blocks = weights.chunks_mut(BLOCK).zip(gradient.chunks(BLOCK));
    for (block, (w, g)) in blocks.enumerate() {
        let (mut m, mut v) = (mean.decode::<T>(block), square.decode::<T>(block));
        let moments = m.iter_mut().zip(&mut v).zip(g);
        for (w, ((m, v), g)) in w.iter_mut().zip(moments) {
            adam_element(step, keep, w, (m, v), *g);
        }
        mean.encode(block, &m);
        square.encode(block, &v);
    }
}
}
