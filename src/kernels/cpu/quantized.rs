//! Frozen matrices in few bits, in host memory.

#[cfg(target_arch = "x86_64")]
mod fast;

use candle_core::{DType, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use super::host::{no_kernel, read, write};
use super::real::Element;
use super::simd::vectorized;
use crate::error::{Error, Result};
use crate::kernels::operands::quantized::{Format, NESTED_BLOCK, Quantized, Scales, Stored};
use crate::kernels::tensor::Dst;

/// Elements per unit of parallel work.
const UNIT: usize = 1 << 14;

/// Numbers of a block of NF4, and of Q8_0.
const NF4_BLOCK: usize = Format::Nf4 { double: false }.block();
const Q8_0_BLOCK: usize = Format::Q8_0.block();

/// The values of NF4's codes: quantiles of the normal distribution, as bitsandbytes has them.
#[allow(clippy::excessive_precision)]
pub const NF4: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// Appends the codes of values, two a byte, and the scale of each block.
pub fn encode_nf4(values: &[f32], codes: &mut Vec<u8>, scales: &mut Vec<f32>) {
    let (bytes, blocks) = (codes.len(), scales.len());
    codes.resize(bytes + values.len().div_ceil(2), 0);
    scales.resize(blocks + values.len().div_ceil(NF4_BLOCK), 0.0);
    let codes = codes[bytes..].par_chunks_mut(UNIT / 2);
    let scales = scales[blocks..].par_chunks_mut(UNIT / NF4_BLOCK);
    let units = values.par_chunks(UNIT).zip(codes).zip(scales);
    units.for_each(|((values, codes), scales)| encode_nf4_unit(values, codes, scales));
}

vectorized! {
    fn encode_nf4_unit(values: &[f32], codes: &mut [u8], scales: &mut [f32]) {
        let codes = codes.chunks_mut(NF4_BLOCK / 2);
        for ((values, codes), scale) in values.chunks(NF4_BLOCK).zip(codes).zip(scales) {
            *scale = largest(values);
            let inverse = inverse(*scale);
            // What pads a block stands for zeros.
            let mut scaled = [0.0f32; NF4_BLOCK];
            for (scaled, value) in scaled.iter_mut().zip(values) {
                *scaled = value * inverse;
            }
            // How many of the values are passed on the way to the nearest.
            let mut passed = [0u32; NF4_BLOCK];
            for i in 1..NF4.len() {
                for (passed, x) in passed.iter_mut().zip(&scaled) {
                    *passed += u32::from((x - NF4[i - 1]).abs() > (x - NF4[i]).abs());
                }
            }
            for (code, two) in codes.iter_mut().zip(passed.as_chunks::<2>().0) {
                *code = (two[0] << 4 | two[1]) as u8;
            }
        }
    }
}

/// The scales in 8 bits: their distances from their mean, which is added up in f64, each the nearest of 256
/// values to its share of the largest of a nested block.
pub fn encode_scales(scales: &[f32]) -> Scales<Vec<u8>, Vec<f32>> {
    let sum: f64 = scales.iter().map(|&scale| f64::from(scale)).sum();
    let offset = (sum / scales.len().max(1) as f64) as f32;
    let map = dynamic_map();
    let distances: Vec<f32> = scales.iter().map(|scale| scale - offset).collect();
    let mut codes = Vec::with_capacity(scales.len());
    let nested = distances.chunks(NESTED_BLOCK).map(|distances| {
        let most = largest(distances);
        let share = |x: f32| if most > 0.0 { x / most } else { 0.0 };
        codes.extend(distances.iter().map(|&x| nearest(&map, share(x))));
        most
    });
    let nested = nested.collect();
    Scales::Double {
        codes,
        nested,
        map,
        offset,
    }
}

/// The place of the nearest of sorted values; of two as near the lower one.
fn nearest(map: &[f32], x: f32) -> u8 {
    let above = map.partition_point(|&value| value <= x).min(map.len() - 1);
    let below = above.saturating_sub(1);
    let to_above = (x - map[below]).abs() > (x - map[above]).abs();
    if to_above { above as u8 } else { below as u8 }
}

/// The 256 values of bitsandbytes' signed dynamic map, sorted: 0, 1, and for each power of ten from 1e-6 to 1
/// the means of neighbours in an even division of [0.1, 1] into 1, 2, .. 64, times both signs.
fn dynamic_map() -> Vec<f32> {
    let mut map = vec![0.0, 1.0];
    for exponent in 0..7u32 {
        let steps = 1u16 << exponent;
        // As torch's linspace, which begins at both ends, rounds.
        let step = (1.0 - 0.1f32) / f32::from(steps);
        let boundary = |i: u16| match i < steps.div_ceil(2) {
            true => step.mul_add(f32::from(i), 0.1),
            false => (-step).mul_add(f32::from(steps - i), 1.0),
        };
        let power = 10f64.powi(exponent.cast_signed() - 6) as f32;
        for i in 0..steps {
            let mean = power * ((boundary(i) + boundary(i + 1)) / 2.0);
            map.extend([mean, -mean]);
        }
    }
    map.sort_by(f32::total_cmp);
    map
}

/// Appends signed bytes, and the scale of each block.
pub fn encode_q8_0(values: &[f32], codes: &mut Vec<u8>, scales: &mut Vec<f32>) -> Result<()> {
    let (bytes, blocks) = (codes.len(), scales.len());
    codes.resize(bytes + values.len(), 0);
    scales.resize(blocks + values.len().div_ceil(Q8_0_BLOCK), 0.0);
    let (codes, scales) = (&mut codes[bytes..], &mut scales[blocks..]);
    let units = codes
        .par_chunks_mut(UNIT)
        .zip(scales.par_chunks_mut(UNIT / Q8_0_BLOCK));
    let units = values.par_chunks(UNIT).zip(units);
    units.for_each(|(values, (codes, scales))| encode_q8_0_unit(values, codes, scales));
    match scales.iter().find(|&&scale| scale > f16::MAX.to_f32()) {
        None => Ok(()),
        Some(scale) => Err(Error::input(format!(
            "a weight of magnitude {} is too large for q8_0, which has f16 scales",
            scale * 127.0
        ))),
    }
}

vectorized! {
    fn encode_q8_0_unit(values: &[f32], codes: &mut [u8], scales: &mut [f32]) {
        let codes = codes.chunks_mut(Q8_0_BLOCK);
        for ((values, codes), scale) in values.chunks(Q8_0_BLOCK).zip(codes).zip(scales) {
            *scale = largest(values) / 127.0;
            let inverse = inverse(*scale);
            for (code, value) in codes.iter_mut().zip(values) {
                *code = ((value * inverse).round() as i8).cast_unsigned();
            }
        }
    }
}

#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |most, x| most.max(x.abs()))
}

/// 1 / x; 0 where that is not finite, so that numbers which are as good as zeros become zeros.
#[inline(always)]
fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Writes the elements from the `first` on.
pub fn dequantize(matrix: &Quantized, first: usize, y: Dst) -> Result<()> {
    match y.dtype() {
        DType::F32 => dequantize_to::<f32>(matrix, first, y),
        DType::BF16 => dequantize_to::<bf16>(matrix, first, y),
        DType::F64 => dequantize_to::<f64>(matrix, first, y),
        other => Err(no_kernel(other)),
    }
}

fn dequantize_to<T: Target>(matrix: &Quantized, first: usize, y: Dst) -> Result<()> {
    match matrix.stored() {
        Stored::Nf4 { codes, map, scales } => {
            let (codes, map) = (read(codes), read(map));
            let (codes, map) = (codes.values::<u8>()?, map.values::<f32>()?);
            let map = map
                .first_chunk()
                .ok_or_else(|| Error::failed("16 values"))?;
            with_scales(scales, |scales| {
                units(y, first, |at, out: &mut [T]| {
                    nf4_unit(codes, map, scales, at, out)
                })
            })
        }
        Stored::Q8_0 { codes, scales } => {
            let (codes, scales) = (read(codes), read(scales));
            let (codes, scales) = (codes.values::<u8>()?, scales.values::<i16>()?);
            units(y, first, |at, out: &mut [T]| {
                q8_0_unit(codes, scales, at, out)
            })
        }
    }
}

/// Calls `f` with parts of `y` and the number of the first element of each.
fn units<T: Element>(y: Dst, first: usize, f: impl Fn(usize, &mut [T]) + Sync) -> Result<()> {
    write(y, |y: &mut [T]| {
        let units = y.par_chunks_mut(UNIT).enumerate();
        units.for_each(|(unit, out)| f(first + unit * UNIT, out));
        Ok(())
    })
}

pub(super) type ScalesOf<'a> = Scales<&'a [u8], &'a [f32]>;

pub(super) fn with_scales<R>(
    scales: &Scales<Tensor, Tensor>,
    f: impl FnOnce(ScalesOf<'_>) -> Result<R>,
) -> Result<R> {
    match scales {
        Scales::Plain(scales) => f(Scales::Plain(read(scales).values::<f32>()?)),
        Scales::Double {
            codes,
            nested,
            map,
            offset,
        } => f(Scales::Double {
            codes: read(codes).values::<u8>()?,
            nested: read(nested).values::<f32>()?,
            map: read(map).values::<f32>()?,
            offset: *offset,
        }),
    }
}

#[inline(always)]
pub(super) fn scale_of(scales: ScalesOf<'_>, block: usize) -> f32 {
    match scales {
        Scales::Plain(scales) => scales[block],
        Scales::Double {
            codes,
            nested,
            map,
            offset,
        } => map[usize::from(codes[block])] * nested[block / NESTED_BLOCK] + offset,
    }
}

/// What numbers are written as.
trait Target: Element {
    /// The nearest to a finite number, ties to even.
    fn of(x: f32) -> Self;

    /// A whole block of NF4 by vector instructions, if there are any.
    #[inline(always)]
    fn nf4_block(_codes: &[u8; 32], _map: &[f32; 16], _scale: f32, _out: &mut [Self; 64]) -> bool {
        false
    }
}

impl Target for f32 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn nf4_block(codes: &[u8; 32], map: &[f32; 16], scale: f32, out: &mut [Self; 64]) -> bool {
        fast::nf4_f32(codes, map, scale, out)
    }
}

impl Target for bf16 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        let bits = x.to_bits();
        Self::from_bits(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn nf4_block(codes: &[u8; 32], map: &[f32; 16], scale: f32, out: &mut [Self; 64]) -> bool {
        fast::nf4_bf16(codes, map, scale, out)
    }
}

impl Target for f64 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        Self::from(x)
    }
}

/// The elements from `first` on.
fn nf4_unit<T: Target>(
    codes: &[u8],
    map: &[f32; 16],
    scales: ScalesOf<'_>,
    first: usize,
    out: &mut [T],
) {
    each_block(first, NF4_BLOCK, out, |at, out| {
        let scale = scale_of(scales, at / NF4_BLOCK);
        if let Ok(out) = <&mut [T; NF4_BLOCK]>::try_from(&mut *out)
            && let Some(codes) = codes[at / 2..].first_chunk()
            && T::nf4_block(codes, map, scale, out)
        {
            return;
        }
        let values = map.map(|x| T::of(x * scale));
        for (out, at) in out.iter_mut().zip(at..) {
            let two = codes[at / 2];
            let code = if at % 2 == 0 { two >> 4 } else { two & 15 };
            *out = values[usize::from(code)];
        }
    });
}

vectorized! {
    fn q8_0_unit<T: Target>(codes: &[u8], scales: &[i16], first: usize, out: &mut [T]) {
        each_block(first, Q8_0_BLOCK, out, |at, out| {
            let scale = f16::from_bits(scales[at / Q8_0_BLOCK].cast_unsigned()).to_f32();
            for (out, code) in out.iter_mut().zip(&codes[at..]) {
                *out = T::of(f32::from(code.cast_signed()) * scale);
            }
        });
    }
}

/// Calls `f` with the part of `out` that lies in each block, and the number of its first element.
#[inline(always)]
fn each_block<T>(first: usize, block: usize, mut out: &mut [T], f: impl Fn(usize, &mut [T])) {
    let mut at = first;
    while !out.is_empty() {
        let (part, rest) = out.split_at_mut(out.len().min(block - at % block));
        at += part.len();
        f(at - part.len(), part);
        out = rest;
    }
}
