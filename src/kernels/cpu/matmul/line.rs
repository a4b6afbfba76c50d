//! 16 units of 32 bits, as they are read from an operand, brought to the precision of the product and stored
//! to a panel.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use half::bf16;

use crate::kernels::cpu::lanes::{self, LINE};
use crate::kernels::cpu::matrix::Matrix;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Bf16Pairs, F32Avx2, F32Avx512};

/// Units of k that are packed for all vectors before the next ones, where elements of a vector are far from
/// each other.
pub(super) const FEW: usize = 4;
/// How far ahead memory is asked for then, in elements of k.
const AHEAD: usize = 2 * FEW;

/// Where lines go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) start: *mut f32,
    /// From one unit of k to the next.
    pub(super) step: usize,
}

/// Up to 16 vectors of an operand, and some elements of each.
#[derive(Debug, Clone)]
pub(super) struct Block<'a, T> {
    pub(super) from: Matrix<'a, T>,
    pub(super) vectors: Range<usize>,
    pub(super) k: Range<usize>,
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
                lanes::fetch(first.wrapping_add(AHEAD * from.strides.1).cast());
                if L::PER == 2 {
                    lanes::fetch(first.wrapping_add((AHEAD + 1) * from.strides.1).cast());
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
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    const IS_BF16: bool;
    /// In f32.
    fn wide(self) -> f32;
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
    const IS_BF16: bool = false;

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn rounded(self) -> f32 {
        bf16::from_f32(self).to_f32()
    }
}

impl Number for bf16 {
    const ZERO: Self = Self::ZERO;
    const IS_BF16: bool = true;

    #[inline(always)]
    fn rounded(self) -> f32 {
        self.wide()
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Numbers in f32, as arrays.
#[derive(Debug, Clone, Copy)]
pub(super) struct F32Portable<const ROUNDED: bool>([f32; LINE]);

impl<const ROUNDED: bool> Line for F32Portable<ROUNDED> {
    const ZERO: Self = Self([0.0; LINE]);
    const PER: usize = 1;

    #[inline(always)]
    unsafe fn neighbours<T: Number>(at: *const T, count: usize) -> Self {
        // SAFETY: the caller's.
        let values = unsafe { T::some(at, count) };
        Self(values.map(if ROUNDED { T::rounded } else { T::wide }))
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
