//! The cosines and sines of tokens' rotary angles.
//!
//! *Why*: frequencies may depend on the length of the sequence that a token is of, and a batch has sequences
//! of many lengths.

use candle_core::{DType, Device};

use super::arch::Rotary;
use crate::error::Result;
use crate::kernels::device::from_host;
use crate::kernels::rotary::Angles;

/// The angles of tokens at these positions of sequences of these lengths, in f32 like transformers', then
/// in `dtype`.
pub(super) fn angles(
    rotary: &Rotary,
    positions: &[u32],
    lengths: &[u32],
    dtype: DType,
    device: &Device,
) -> Result<Angles> {
    let half = rotary.dim / 2;
    let classes = lengths
        .iter()
        .map(|&length| rotary.length_class(length as usize));
    let classes: Vec<usize> = classes.collect();
    let mut distinct = classes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let frequencies = distinct
        .iter()
        .map(|&class| rotary.inverse_frequencies(class));
    let frequencies: Vec<Vec<f32>> = frequencies.collect();
    // Of each token the place of its frequencies, and its position.
    let place = |class: &usize| distinct.partition_point(|other| other < class);
    let tokens = classes.iter().map(place).zip(positions.iter().copied());
    let of = |(place, position): (usize, u32)| {
        frequencies[place].iter().map(move |f| position as f32 * f)
    };
    // Tokens of a batch share positions, and a cosine costs more than a copy.
    let most = positions.iter().max().map_or(0, |&most| most + 1);
    let shared = most as usize * distinct.len() < positions.len();
    let factor = rotary.attention_factor() as f32;
    let turn = |f: fn(f32) -> f32| -> Result<_> {
        let scaled = |angle| f(angle) * factor;
        let values: Vec<f32> = if shared {
            let all = (0..distinct.len()).flat_map(|place| (0..most).map(move |p| (place, p)));
            let table: Vec<f32> = all.flat_map(of).map(scaled).collect();
            let row = |(place, position): (usize, u32)| {
                let row = place * most as usize + position as usize;
                table[row * half..][..half].iter().copied()
            };
            tokens.clone().flat_map(row).collect()
        } else {
            tokens.clone().flat_map(of).map(scaled).collect()
        };
        let values = from_host(&values, (positions.len(), 1, half), device)?;
        Ok(values.to_dtype(dtype)?)
    };
    Ok(Angles {
        cos: turn(f32::cos)?,
        sin: turn(f32::sin)?,
    })
}
