//! From a matrix as it is stored to panels.

use rayon::prelude::*;

use super::round::AT_ONCE;
use crate::error::{Error, Result};
use crate::kernels::cpu::host::read;
use crate::kernels::cpu::quantized::{scale_of, with_scales};
use crate::kernels::operands::packed::{Line, PANEL, PackedFormat, PackedMatrix};
use crate::kernels::operands::quantized::{Quantized, Stored};

/// A dense matrix (out, in), of which `turn` makes one of the panel's numbers of `per`, or of the fewer at
/// the end of a row.
pub(super) fn dense<T: Copy + Sync, U: Number>(
    values: &[T],
    shape: (usize, usize),
    format: PackedFormat,
    per: usize,
    turn: impl Fn(&mut [U], &[T]) + Sync,
) -> PackedMatrix {
    let inputs = shape.1;
    assert!(
        values.len() >= shape.0 * inputs,
        "a matrix outside its memory"
    );
    let per_block = format.block_bytes() / (size_of::<U>() * PANEL);
    assert_eq!(per_block * per, format.block(), "numbers of a block");
    let rows = values.chunks_exact(inputs.max(1));
    let rows: Vec<&[T]> = rows.take(shape.0).collect();
    panels(shape, format, |panel, lines| {
        let rows = &rows[(panel * PANEL).min(rows.len())..rows.len().min((panel + 1) * PANEL)];
        let to = numbers::<U>(lines).chunks_mut(AT_ONCE * PANEL);
        for (at, to) in to.enumerate() {
            // A row after the other into the cache, from there side by side.
            let mut turned = [[U::ZERO; AT_ONCE]; PANEL];
            for (values, turned) in rows.iter().zip(&mut turned) {
                let start = (at * AT_ONCE * per).min(inputs);
                let values = &values[start..inputs.min(start + AT_ONCE * per)];
                turn(&mut turned[..values.len().div_ceil(per)], values);
            }
            for (i, to) in to.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                *to = std::array::from_fn(|row| turned[row][i]);
            }
        }
    })
}

/// A matrix in few bits; `None` where a block of one scale is of two rows.
pub(super) fn quantized(matrix: &Quantized) -> Result<Option<PackedMatrix>> {
    let (shape, block) = (matrix.shape(), matrix.format().block());
    let (outs, inputs) = shape;
    if PackedFormat::of(matrix.format(), shape) == PackedFormat::F32 {
        return Ok(None);
    }
    // The rows of a panel that there are, with their places in it.
    let rows = |panel: usize| (panel * PANEL..outs.min((panel + 1) * PANEL)).enumerate();
    let packed = match matrix.stored() {
        Stored::Q8_0 { codes, scales } => {
            let (codes, scales) = (read(codes), read(scales));
            let (codes, scales) = (codes.values::<u8>()?, scales.values::<i16>()?);
            panels(shape, PackedFormat::Q8_0, |panel, lines| {
                let bytes = numbers::<u8>(lines);
                let to = bytes.chunks_exact_mut(PackedFormat::Q8_0.block_bytes());
                for (i, to) in to.take(inputs / block).enumerate() {
                    let (to_scales, to_codes) = to.split_at_mut(2 * PANEL);
                    for (at, row) in rows(panel) {
                        let from = row * inputs + i * block;
                        to_scales[2 * at..][..2]
                            .copy_from_slice(&scales[from / block].to_le_bytes());
                        let codes = &codes[from..][..block];
                        for (to, code) in to_codes.chunks_exact_mut(PANEL).zip(codes) {
                            to[at] = *code;
                        }
                    }
                }
            })
        }
        Stored::Nf4 { codes, map, scales } => {
            let (codes, map) = (read(codes), read(map));
            let (codes, map) = (codes.values::<u8>()?, map.values::<f32>()?);
            let map = map
                .first_chunk()
                .ok_or_else(|| Error::failed("16 values"))?;
            let format = PackedFormat::Nf4(*map);
            with_scales(scales, |scales| {
                Ok(panels(shape, format, |panel, lines| {
                    let to = lines.chunks_exact_mut(format.block_bytes() / size_of::<Line>());
                    for (i, to) in to.enumerate() {
                        let (to_scales, to_codes) = to.split_at_mut(1);
                        let to_scales = numbers::<f32>(to_scales);
                        let to_codes = numbers::<u8>(to_codes);
                        for (at, row) in rows(panel) {
                            let from = row * inputs + i * block;
                            to_scales[at] = scale_of(scales, from / block);
                            // A byte has two codes of a row, the first in the high half.
                            let codes = &codes[from / 2..][..block / 2];
                            for (to, two) in to_codes.chunks_exact_mut(PANEL).zip(codes) {
                                let shift = at / 8 * 4;
                                to[at % 8] |= (two >> 4) << shift;
                                to[PANEL / 2 + at % 8] |= (two & 15) << shift;
                            }
                        }
                    }
                }))
            })?
        }
    };
    Ok(Some(packed))
}

/// Panels that `fill` writes: (number of the panel, its lines, which are zeros).
fn panels(
    shape: (usize, usize),
    format: PackedFormat,
    fill: impl Fn(usize, &mut [Line]) + Sync,
) -> PackedMatrix {
    PackedMatrix::new(shape, format, |lines, panel_lines| {
        let panels = lines.par_chunks_exact_mut(panel_lines.max(1)).enumerate();
        panels.for_each(|(panel, lines)| fill(panel, lines));
    })
}

/// Lines as numbers of a type without invalid values.
fn numbers<U: Number>(lines: &mut [Line]) -> &mut [U] {
    let len = size_of_val(lines) / size_of::<U>();
    // SAFETY: the lines are aligned for every number, and any bits are one.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) }
}

/// Types of which any bits are a number.
///
/// # Safety
/// They are, and such a type is aligned to 64 bytes or less.
pub(super) unsafe trait Number: Copy + Send {
    const ZERO: Self;
}

// SAFETY: of all of these any bits are a number.
unsafe impl Number for u8 {
    const ZERO: Self = 0;
}
// SAFETY: as above.
unsafe impl Number for u32 {
    const ZERO: Self = 0;
}
// SAFETY: as above.
unsafe impl Number for f32 {
    const ZERO: Self = 0.0;
}
// SAFETY: as above.
unsafe impl Number for f64 {
    const ZERO: Self = 0.0;
}
