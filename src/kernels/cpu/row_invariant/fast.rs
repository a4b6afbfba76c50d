//! The products on CPUs with 512-bit vectors.
//!
//! A panel of 16 rows of the weight is turned, 16 elements of each at a time, so that a vector has one
//! element of every row; it is multiplied with that element of each row of `x`, whose sums stay in
//! registers. So nothing is summed across a vector, and `x` is read once for 16 rows of the weight.

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;

use super::{PANEL, Take};

/// Rows of `x` whose sums are in registers at once.
const ROWS: usize = 16;

/// What is fetched ahead of its use, in elements of 32 bits.
const AHEAD: usize = 96;

pub(super) fn has_full() -> bool {
    is_x86_feature_detected!("avx512f")
}

pub(super) fn has_bf16() -> bool {
    has_full() && is_x86_feature_detected!("avx512bf16")
}

/// `x` (n, k) as (k, n).
pub(super) fn turn(x: &[f32], (n, k): (usize, usize)) -> Vec<f32> {
    let mut turned = vec![0.0; n * k];
    for (row, x) in x.chunks_exact(k.max(1)).enumerate() {
        for (to, &x) in turned.chunks_exact_mut(n).zip(x) {
            to[row] = x;
        }
    }
    turned
}

/// `x` (n, k) rounded, as (k / 2, n) pairs, the last of an odd k with a zero.
///
/// # Panics
/// If the CPU lacks the instructions.
pub(super) fn turn_pairs(x: &[f32], (n, k): (usize, usize)) -> Vec<f32> {
    assert!(has_bf16());
    let mut turned = vec![0.0; n * k.div_ceil(2)];
    for (row, x) in x.chunks_exact(k.max(1)).enumerate() {
        for (to, x) in turned.chunks_mut(8 * n).zip(x.chunks(16)) {
            let mut all = [0.0; 16];
            all[..x.len()].copy_from_slice(x);
            // SAFETY: the CPU has the instructions.
            let pairs = unsafe { round(&all) };
            for (to, pair) in to.chunks_exact_mut(n).zip(pairs) {
                to[row] = pair;
            }
        }
    }
    turned
}

/// Pairs of bf16, each in the bits of an f32.
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(x: &[f32; 16]) -> [f32; 8] {
    // SAFETY: there are 16; both types are 256 bits without an invalid value.
    unsafe { std::mem::transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr()))) }
}

macro_rules! tiles {
    ($name:ident, $tile:ident, $element:ty, $per:literal, $add:ident, $features:literal, $has:ident) => {
        /// Sums of the rows of `x`, turned, with the rows `outs` of `weight` (outs, k).
        ///
        /// # Panics
        /// If the CPU lacks the instructions, or there are no such rows.
        pub(super) fn $name(
            x: &[f32],
            weight: &[$element],
            (n, k): (usize, usize),
            outs: Range<usize>,
            f: Take<f32>,
        ) {
            assert!($has() && x.len() == n * k.div_ceil($per) && weight.len() >= outs.end * k);
            let groups = n.div_ceil(ROWS).max(1);
            for out in outs.clone().step_by(PANEL) {
                let count = PANEL.min(outs.end - out);
                // The last one again where there are fewer.
                let w: [*const $element; PANEL] =
                    std::array::from_fn(|i| weight[(out + i.min(count - 1)) * k..].as_ptr());
                for group in 0..groups {
                    let rows = group * n / groups..(group + 1) * n / groups;
                    let mut take =
                        |i: usize, sums: [f32; PANEL]| f(rows.start + i, out, &sums[..count]);
                    macro_rules! of {
                        ($rows_at_once:literal) => {
                            // SAFETY: the CPU has what this is compiled for, `x` has the rows
                            // and each pointer is that of k elements.
                            unsafe { $tile::<$rows_at_once>(&x[rows.start..], n, w, k, &mut take) }
                        };
                    }
                    match rows.len() {
                        0 => {}
                        1 => of!(1),
                        2 => of!(2),
                        3 => of!(3),
                        4 => of!(4),
                        5 => of!(5),
                        6 => of!(6),
                        7 => of!(7),
                        8 => of!(8),
                        9 => of!(9),
                        10 => of!(10),
                        11 => of!(11),
                        12 => of!(12),
                        13 => of!(13),
                        14 => of!(14),
                        15 => of!(15),
                        _ => of!(16),
                    }
                }
            }
        }

        /// # Safety
        /// The CPU has what this is compiled for; `x` has `R` of `n` columns, `w` rows of `k`.
        #[target_feature(enable = $features)]
        unsafe fn $tile<const R: usize>(
            x: &[f32],
            n: usize,
            w: [*const $element; PANEL],
            k: usize,
            take: &mut impl FnMut(usize, [f32; PANEL]),
        ) {
            const BLOCK: usize = 16 * $per;
            let mut sums = [_mm512_setzero_ps(); R];
            let mut at = 0;
            while at < k {
                let left = (k - at).min(BLOCK);
                // Ahead in this panel, then in the next one.
                let ahead = at + AHEAD * $per;
                let ahead = if ahead < k {
                    ahead
                } else {
                    ahead - k + PANEL * k
                };
                // SAFETY: inside each row, or left out by the mask; what is fetched ahead may lie
                // anywhere.
                let w: [__m512; PANEL] = unsafe {
                    std::array::from_fn(|i| {
                        _mm_prefetch::<_MM_HINT_T0>(w[i].wrapping_add(ahead).cast());
                        match left {
                            BLOCK => _mm512_loadu_ps(w[i].add(at).cast()),
                            _ => rest(w[i].add(at).cast(), left * size_of::<$element>()),
                        }
                    })
                };
                let w = transpose(w);
                let x = &x[at / $per * n..];
                for (j, w) in w.into_iter().enumerate().take(left.div_ceil($per)) {
                    let x = &x[j * n..][..R];
                    for (sum, &x) in sums.iter_mut().zip(x) {
                        *sum = $add(*sum, _mm512_set1_ps(x), w);
                    }
                }
                at += BLOCK;
            }
            for (r, sum) in sums.into_iter().enumerate() {
                let mut all = [0.0; PANEL];
                // SAFETY: there is room for 16.
                unsafe { _mm512_storeu_ps(all.as_mut_ptr(), sum) };
                take(r, all);
            }
        }
    };
}

tiles!(full, tile_full, f32, 1, add_full, "avx512f", has_full);
tiles!(
    pairs,
    tile_pairs,
    bf16,
    2,
    add_pairs,
    "avx512f,avx512bf16",
    has_bf16
);

#[inline]
#[target_feature(enable = "avx512f")]
fn add_full(sum: __m512, x: __m512, w: __m512) -> __m512 {
    _mm512_fmadd_ps(x, w, sum)
}

/// Of pairs of bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_pairs(sum: __m512, x: __m512, w: __m512) -> __m512 {
    // SAFETY: both types are 512 bits without an invalid value.
    let [x, w]: [__m512bh; 2] = unsafe { std::mem::transmute([x, w]) };
    _mm512_dpbf16_ps(sum, x, w)
}

/// The first `bytes`, an even number below 64, then zeros.
///
/// # Safety
/// They lie there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn rest(x: *const f32, bytes: usize) -> __m512 {
    let mut all = [0u8; 64];
    // SAFETY: the caller's; 64 are room for fewer.
    unsafe {
        std::ptr::copy_nonoverlapping(x.cast(), all.as_mut_ptr(), bytes);
        _mm512_loadu_ps(all.as_ptr().cast())
    }
}

/// Vector i's element j becomes vector j's element i.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(mut r: [__m512; 16]) -> [__m512; 16] {
    let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let high =
        |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let even = |a, b| _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
    let odd = |a, b| _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
    let mut t = r;
    for i in (0..16).step_by(2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for i in (0..16).step_by(4) {
        r[i] = low(t[i], t[i + 2]);
        r[i + 1] = high(t[i], t[i + 2]);
        r[i + 2] = low(t[i + 1], t[i + 3]);
        r[i + 3] = high(t[i + 1], t[i + 3]);
    }
    for i in 0..4 {
        t[i] = even(r[i], r[i + 4]);
        t[i + 4] = odd(r[i], r[i + 4]);
        t[i + 8] = even(r[i + 8], r[i + 12]);
        t[i + 12] = odd(r[i + 8], r[i + 12]);
    }
    for i in 0..4 {
        r[i] = even(t[i], t[i + 8]);
        r[i + 4] = even(t[i + 4], t[i + 12]);
        r[i + 8] = odd(t[i], t[i + 8]);
        r[i + 12] = odd(t[i + 4], t[i + 12]);
    }
    r
}
