//! Operands laid out as a tile reads them.

use std::ops::Range;

use super::Operand;
use super::kernel::Kernel;
use super::line::{Block, FEW, Number, Place};
use crate::kernels::cpu::lanes::LINE;
use crate::kernels::cpu::matrix::Matrix;

/// Panels of `width` vectors: rows of the left operand, or columns of the right one.
///
/// A panel holds, for each unit of k, 32 bits of each of its vectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels {
    pub(super) width: usize,
    /// Units of k.
    pub(super) units: usize,
}

impl Panels {
    /// From one panel to the next: room for a line that is stored past the last unit, and an odd number of
    /// units, so that panels do not share the sets of a cache.
    pub(super) fn distance(self) -> usize {
        ((self.units + LINE.div_ceil(self.width)) | 1) * self.width
    }

    /// Packs elements `k` of the vectors from `first` on into as many panels as `into` has room for.
    /// `from` is (vectors, k); what stands for vectors past its last one is undefined.
    ///
    /// # Safety
    /// The CPU has the instructions.
    pub(super) unsafe fn pack<K: Kernel>(
        self,
        into: &mut [f32],
        from: Operand,
        first: usize,
        k: Range<usize>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            match from {
                Operand::F32(from) => self.pack_of::<K, _>(into, from, first, k),
                Operand::Bf16(from) => self.pack_of::<K, _>(into, from, first, k),
            }
        }
    }

    /// As [`Self::pack`], of elements of one type.
    ///
    /// # Safety
    /// As of it.
    unsafe fn pack_of<K: Kernel, T: Number>(
        self,
        into: &mut [f32],
        from: Matrix<T>,
        first: usize,
        k: Range<usize>,
    ) {
        let count = into.len() / self.distance();
        assert!(k.end <= from.shape.1 && k.len().div_ceil(K::PER) == self.units);
        assert!(count == 0 || first + (count - 1) * self.width < from.shape.0);
        // The lines of the first unit of k, each with its vectors.
        let lines = (0..count).flat_map(|panel| {
            let start = first + panel * self.width;
            let end = from.shape.0.min(start + self.width);
            let starts = (start..end).step_by(LINE).enumerate();
            starts.map(move |(line, start)| {
                (
                    panel * self.distance() + line * LINE,
                    start..end.min(start + LINE),
                )
            })
        });
        let along = from.strides.1 == 1;
        let at_once = if along { LINE } else { FEW };
        let blocks = (0..self.units).step_by(at_once).map(|unit| {
            let k = k.start + K::PER * unit..k.end.min(k.start + K::PER * (unit + at_once));
            (unit * self.width, k)
        });
        let start = into.as_mut_ptr();
        let place = |at: usize| Place {
            start: start.wrapping_add(at),
            step: self.width,
        };
        if along {
            for (line, vectors) in lines {
                for (unit, part) in blocks.clone() {
                    // Past these vectors' elements come those of the next ones.
                    let ahead = match part.start + AHEAD < k.end {
                        true => AHEAD,
                        false => {
                            (AHEAD + self.width.min(LINE) * from.strides.0).wrapping_sub(k.len())
                        }
                    };
                    // SAFETY: vectors and elements lie inside the operand, as asserted, and the
                    // lines of the units inside their panel.
                    unsafe {
                        K::along(
                            place(line + unit),
                            Block {
                                from,
                                vectors: vectors.clone(),
                                k: part,
                            },
                            ahead,
                        )
                    };
                }
            }
        } else {
            for (unit, k) in blocks {
                for (line, vectors) in lines.clone() {
                    // SAFETY: as above.
                    unsafe {
                        K::across(
                            place(line + unit),
                            Block {
                                from,
                                vectors,
                                k: k.clone(),
                            },
                        )
                    };
                }
            }
        }
    }
}

/// How far ahead memory is asked for, in elements of k, where they are neighbours.
const AHEAD: usize = 128;
