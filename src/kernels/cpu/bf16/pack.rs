//! Operands rounded to bf16 and laid out as a tile reads them.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use half::bf16;

use super::Operand;
use super::kernel::Kernel;
use crate::kernels::cpu::lanes::{self, LINE};
use crate::kernels::cpu::matrix::Matrix;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Narrow, Pairs, Wide};

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
    /// From one panel to the next: an odd number of units, so that panels do not share the sets of a
    /// cache, and room for a line that is stored past the last one.
    pub(super) fn distance(self) -> usize {
        (self.units | 1) * self.width + LINE
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
                        false => (AHEAD + LINE * from.strides.0).wrapping_sub(k.len()),
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

/// Units of k that are packed for all vectors before the next ones, which lie far away.
const FEW: usize = 4;
/// How far ahead memory is asked for, in elements of k: where they are neighbours, and where not.
const AHEAD: usize = 128;
const AHEAD_ROWS: usize = 2 * FEW;

/// Where lines go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    start: *mut f32,
    /// From one unit of k to the next.
    step: usize,
}

/// Up to 16 vectors of an operand, and some elements of each.
#[derive(Debug, Clone)]
pub(super) struct Block<'a, T> {
    from: Matrix<'a, T>,
    vectors: Range<usize>,
    k: Range<usize>,
}

/// Up to 16 units of vectors whose elements are neighbours; asks for what lies `ahead` of them, wherever
/// that is. A line may be stored past its vectors, before the next one.
///
/// # Safety
/// Vectors and elements lie inside the operand, a line for each unit where it goes.
#[inline(always)]
pub(super) unsafe fn along<L: Line, T: Number>(to: Place, block: Block<T>, ahead: usize) {
    let Block { from, vectors, k } = block;
    let start = from.values.as_ptr();
    // SAFETY: the caller's.
    unsafe {
        let mut x = [L::ZERO; LINE];
        for (i, x) in x.iter_mut().enumerate() {
            let vector = (vectors.start + i).min(vectors.end - 1);
            let at = start.add(vector * from.strides.0 + k.start);
            lanes::fetch(at.wrapping_add(ahead).cast());
            if L::PER * size_of::<T>() > size_of::<f32>() {
                lanes::fetch(at.wrapping_add(ahead + LINE).cast());
            }
            *x = L::neighbours(at, k.len());
        }
        let units = k.len().div_ceil(L::PER);
        for (unit, x) in L::transposed(x).into_iter().enumerate() {
            if unit < units {
                x.store(to.start.add(unit * to.step));
            }
        }
    }
}

/// A few units of vectors whose elements are far from each other.
///
/// # Safety
/// As of [`along`].
#[inline(always)]
pub(super) unsafe fn across<L: Line, T: Number>(to: Place, block: Block<T>) {
    let Block { from, vectors, k } = block;
    let start = from.values.as_ptr();
    // SAFETY: the caller's.
    unsafe {
        for (unit, first) in k.clone().step_by(L::PER).enumerate() {
            let at = |k: usize| start.add(vectors.start * from.strides.0 + k * from.strides.1);
            let (first, second) = (at(first), (first + 1 < k.end).then(|| at(first + 1)));
            let to = to.start.add(unit * to.step);
            if from.strides.0 == 1 {
                lanes::fetch(first.wrapping_add(AHEAD_ROWS * from.strides.1).cast());
                if L::PER == 2 {
                    lanes::fetch(first.wrapping_add((AHEAD_ROWS + 1) * from.strides.1).cast());
                }
                L::unit(first, second, vectors.len()).store(to);
                continue;
            }
            let gathered = |from_first: *const T| {
                let mut values = [T::ZERO; LINE];
                for (i, value) in values.iter_mut().enumerate().take(vectors.len()) {
                    *value = *from_first.add(i * from.strides.0);
                }
                values
            };
            let (first, second) = (gathered(first), second.map(gathered));
            L::unit(first.as_ptr(), second.as_ref().map(|x| x.as_ptr()), LINE).store(to);
        }
    }
}

/// 16 units of 32 bits in registers.
///
/// # Safety
/// Of every function: the CPU has the instructions of the type, and as many elements lie at a pointer as
/// it says.
pub(super) trait Line: Copy {
    const ZERO: Self;
    /// Elements in a unit.
    const PER: usize;
    /// The first `count` elements from there on, at most 16 units, zeros behind them.
    unsafe fn neighbours<T: Number>(at: *const T, count: usize) -> Self;
    /// One unit of each of `count` vectors: their first elements, and their second ones where units have two.
    unsafe fn unit<T: Number>(first: *const T, second: Option<*const T>, count: usize) -> Self;
    unsafe fn transposed(lines: [Self; LINE]) -> [Self; LINE];
    unsafe fn store(self, to: *mut f32);
}

/// An element of an operand.
pub(super) trait Number: Copy + Send + Sync {
    const ZERO: Self;
    /// Whether it is bf16.
    const NARROW: bool;
    /// Rounded to the nearest bf16.
    fn rounded(self) -> f32;

    /// `count` of them, at most 16, zeros behind them.
    ///
    /// # Safety
    /// They lie there.
    #[inline(always)]
    unsafe fn some(at: *const Self, count: usize) -> [Self; LINE] {
        let mut values = [Self::ZERO; LINE];
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(at, values.as_mut_ptr(), count.min(LINE)) };
        values
    }
}

impl Number for f32 {
    const ZERO: Self = 0.0;
    const NARROW: bool = false;

    #[inline(always)]
    fn rounded(self) -> f32 {
        bf16::from_f32(self).to_f32()
    }
}

impl Number for bf16 {
    const ZERO: Self = Self::ZERO;
    const NARROW: bool = true;

    #[inline(always)]
    fn rounded(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Plain numbers in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain([f32; LINE]);

impl Line for Plain {
    const ZERO: Self = Self([0.0; LINE]);
    const PER: usize = 1;

    #[inline(always)]
    unsafe fn neighbours<T: Number>(at: *const T, count: usize) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { T::some(at, count) }.map(Number::rounded))
    }

    #[inline(always)]
    unsafe fn unit<T: Number>(first: *const T, _: Option<*const T>, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::neighbours(first, count) }
    }

    #[inline(always)]
    unsafe fn transposed(lines: [Self; LINE]) -> [Self; LINE] {
        std::array::from_fn(|i| Self(std::array::from_fn(|j| lines[j].0[i])))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; LINE]>().write_unaligned(self.0) }
    }
}
