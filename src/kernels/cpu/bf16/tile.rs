//! One tile of a product: the loop that all the time is spent in.

use std::arch::x86_64::*;

use super::scratch::LINE;

/// Rows and columns of a tile: 28 of the 32 registers hold its sums, 2 a pair of rows of b and 1 an
/// element of a.
pub(super) const TILE: (usize, usize) = (14, 32);

/// Where a tile of `c` lies and how much of it exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) start: *mut f32,
    /// Distance of rows.
    pub(super) stride: usize,
    /// (rows, columns), at most [`TILE`].
    pub(super) shape: (usize, usize),
}

/// `c = a b`, or `c += a b` where `add`, for a tile of `c`.
///
/// `a` holds one line per pair of k, with the pair of each row; `b` two, with the pair of each
/// column.
///
/// # Safety
/// The CPU has what this is compiled for; `c` may be written where its shape says, and nobody
/// else does.
///
/// # Panics
/// If `a` or `b` holds fewer than `pairs` pairs of k.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn tile(pairs: usize, a: &[f32], b: &[f32], c: Place, add: bool) {
    assert!(a.len() >= pairs * LINE && b.len() >= pairs * 2 * LINE);
    let (a, b) = (a.as_ptr(), b.as_ptr());
    // SAFETY: the caller's, and the panels are long enough.
    unsafe {
        match c.shape.0 {
            0..=4 => rows::<4>(pairs, a, b, c, add),
            5..=9 => rows::<9>(pairs, a, b, c, add),
            _ => rows::<{ TILE.0 }>(pairs, a, b, c, add),
        }
    }
}

/// [`tile`] for at most `ROWS` rows.
///
/// # Safety
/// As for [`tile`]; `a` and `b` hold the pairs.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const ROWS: usize>(pairs: usize, a: *const f32, b: *const f32, c: Place, add: bool) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    // What is written at the end is on its way from now on.
    for i in 0..c.shape.0 {
        // SAFETY: the row lies inside the matrix.
        unsafe {
            let row = c.start.add(i * c.stride);
            _mm_prefetch::<_MM_HINT_ET0>(row.cast());
            _mm_prefetch::<_MM_HINT_ET0>(row.add(c.shape.1 - 1).cast());
        }
    }
    for pair in 0..pairs {
        // SAFETY: the panels hold the pair.
        unsafe {
            let (a, b) = (a.add(pair * LINE), b.add(pair * 2 * LINE));
            let b = [load(b), load(b.add(LINE))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let a: __m512bh = std::mem::transmute(_mm512_set1_ps(*a.add(i)));
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbf16_ps(*sum, a, b);
                }
            }
        }
    }
    let mask = (1u64 << c.shape.1) - 1;
    let masks = [mask as __mmask16, (mask >> 16) as __mmask16];
    for (i, sums) in sums.into_iter().enumerate().take(c.shape.0) {
        for (j, (sum, mask)) in sums.into_iter().zip(masks).enumerate() {
            // SAFETY: the mask leaves out what lies past the row.
            unsafe {
                let c = c.start.wrapping_add(i * c.stride + j * LINE);
                let sum = if add {
                    _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sum)
                } else {
                    sum
                };
                _mm512_mask_storeu_ps(c, mask, sum);
            }
        }
    }
}

/// 16 pairs.
///
/// # Safety
/// They lie there.
#[target_feature(enable = "avx512f")]
unsafe fn load(x: *const f32) -> __m512bh {
    // SAFETY: the caller's; both types are 512 bits without an invalid value.
    unsafe { std::mem::transmute(_mm512_loadu_ps(x)) }
}
