//! How the numbers of a panel are stored, and read into lanes.

#[cfg(target_arch = "x86_64")]
use crate::kernels::cpu::lanes::Avx512Bf16;
use crate::kernels::cpu::lanes::{Decode, Lanes};
use crate::kernels::operands::packed::PANEL;

/// Inputs of a block of numbers that are not in few bits, so that a loop has enough to do between its
/// branches.
pub(super) const PLAIN: usize = 4;

/// How a panel's numbers are stored: blocks, one after the other.
///
/// # Safety
/// As of [`Lanes`]; a block lies where its pointer says.
pub(super) trait Format<L: Lanes>: Copy {
    /// Elements of a row of `x` that a block is multiplied with.
    const STEPS: usize;
    const BYTES: usize;
    /// Groups of rows of `x` at most that numbers are decoded for as they are multiplied; for more, they are
    /// decoded once, into the first-level cache.
    const GROUPS: usize;
    /// What all numbers of a block share.
    type Shared: Copy;
    unsafe fn shared(self, block: *const u8) -> Self::Shared;
    unsafe fn weights(shared: Self::Shared, block: *const u8, step: usize) -> L;
}

/// Numbers as they are computed with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full;

impl<L: Lanes> Format<L> for Full {
    const STEPS: usize = PLAIN;
    const BYTES: usize = PLAIN * PANEL * size_of::<L::Element>();
    const GROUPS: usize = usize::MAX;
    type Shared = ();

    #[inline(always)]
    unsafe fn shared(self, _: *const u8) {}

    #[inline(always)]
    unsafe fn weights((): (), block: *const u8, step: usize) -> L {
        // SAFETY: the caller's.
        unsafe { L::load(block.cast::<L::Element>().add(step * PANEL)) }
    }
}

/// Pairs of bf16, widened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs;

impl<L: Decode> Format<L> for Pairs {
    const STEPS: usize = PLAIN;
    const BYTES: usize = PLAIN * 2 * PANEL;
    const GROUPS: usize = 4;
    type Shared = ();

    #[inline(always)]
    unsafe fn shared(self, _: *const u8) {}

    #[inline(always)]
    unsafe fn weights((): (), block: *const u8, step: usize) -> L {
        // SAFETY: the caller's.
        unsafe {
            let pairs = block.add(step / 2 * 4 * PANEL);
            match step % 2 {
                0 => L::first_of_pairs(pairs),
                _ => L::second_of_pairs(pairs),
            }
        }
    }
}

/// Pairs of bf16, multiplied as such by AVX512_BF16; `x` has pairs, too.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct WholePairs;

#[cfg(target_arch = "x86_64")]
impl Format<Avx512Bf16> for WholePairs {
    const STEPS: usize = PLAIN / 2;
    const BYTES: usize = PLAIN * 2 * PANEL;
    const GROUPS: usize = usize::MAX;
    type Shared = ();

    #[inline(always)]
    unsafe fn shared(self, _: *const u8) {}

    #[inline(always)]
    unsafe fn weights((): (), block: *const u8, step: usize) -> Avx512Bf16 {
        // SAFETY: the caller's.
        unsafe { Lanes::load(block.cast::<f32>().add(step * PANEL)) }
    }
}

/// Q8_0.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignedBytes;

impl<L: Decode> Format<L> for SignedBytes {
    const STEPS: usize = 32;
    const BYTES: usize = 2 * PANEL + 32 * PANEL;
    const GROUPS: usize = 1;
    type Shared = L;

    #[inline(always)]
    unsafe fn shared(self, block: *const u8) -> L {
        // SAFETY: the caller's.
        unsafe { L::halves(block) }
    }

    #[inline(always)]
    unsafe fn weights(scales: L, block: *const u8, step: usize) -> L {
        // SAFETY: the caller's.
        unsafe { L::signed_bytes(block.add((2 + step) * PANEL)).times(scales) }
    }
}

/// NF4, with the values of its codes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codes<'a>(pub &'a [f32; 16]);

impl<L: Decode> Format<L> for Codes<'_> {
    const STEPS: usize = 64;
    const BYTES: usize = 4 * PANEL + 64 * PANEL / 2;
    const GROUPS: usize = 1;
    type Shared = (L::Table, L);

    #[inline(always)]
    unsafe fn shared(self, block: *const u8) -> (L::Table, L) {
        // SAFETY: the caller's.
        unsafe { (L::table(self.0.as_ptr()), L::load(block.cast())) }
    }

    #[inline(always)]
    unsafe fn weights((table, scales): (L::Table, L), block: *const u8, step: usize) -> L {
        // SAFETY: the caller's.
        unsafe { L::values(table, block.add(4 * PANEL + step * PANEL / 2)).times(scales) }
    }
}
