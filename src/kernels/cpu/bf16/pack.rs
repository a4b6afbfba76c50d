//! Operands rounded to bf16 and laid out as a tile reads them.

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;

use super::Operand;
use super::scratch::LINE;
use crate::kernels::cpu::matrix::Matrix;

/// Panels of `width` vectors: rows of the left operand, or columns of the right one.
///
/// A panel holds, for each pair of k, the two elements of each of its vectors in 32 bits, in as many
/// cache lines as that takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels {
    pub(super) width: usize,
    /// Pairs of k.
    pub(super) pairs: usize,
}

impl Panels {
    /// From one pair of k to the next, in units of 32 bits.
    pub(super) fn step(self) -> usize {
        self.width.next_multiple_of(LINE)
    }

    /// From one panel to the next: an odd number of pairs, so that panels do not share the sets of a
    /// cache.
    pub(super) fn distance(self) -> usize {
        (self.pairs | 1) * self.step()
    }

    /// Packs elements `k` of the vectors from `first` on into as many panels as `into` has room for.
    /// `from` is (vectors, k); what stands for vectors past its last one is undefined.
    ///
    /// # Safety
    /// The CPU has what this is compiled for.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn pack(self, into: &mut [f32], from: Operand, first: usize, k: Range<usize>) {
        match from {
            Operand::F32(from) => self.pack_of(into, from, first, k),
            Operand::Bf16(from) => self.pack_of(into, from, first, k),
        }
    }

    /// As [`Self::pack`], of elements of one type.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pack_of<T: Packable>(
        self,
        into: &mut [f32],
        from: Matrix<T>,
        first: usize,
        k: Range<usize>,
    ) {
        let count = into.len() / self.distance();
        assert!(k.end <= from.shape.1 && k.len().div_ceil(2) == self.pairs);
        assert!(count == 0 || first + (count - 1) * self.width < from.shape.0);
        // The cache lines of the first pair of k, each with its vectors.
        let lines = (0..count).flat_map(|panel| {
            let start = first + panel * self.width;
            let end = from.shape.0.min(start + self.width);
            let starts = (start..end).step_by(LINE).enumerate();
            starts.map(move |(line, start)| {
                let at = panel * self.distance() + line * LINE;
                (at, start..end.min(start + LINE))
            })
        });
        let step = self.step();
        let at_once = if from.strides.1 == 1 { LINE } else { FEW };
        let blocks = (0..self.pairs).step_by(at_once).map(|pair| {
            let k = k.start + 2 * pair..k.end.min(k.start + 2 * (pair + at_once));
            (pair * step, k)
        });
        if from.strides.1 == 1 {
            for (line, vectors) in lines {
                for (pair, part) in blocks.clone() {
                    // Past these vectors' elements come those of the next ones.
                    let ahead = match part.start + AHEAD < k.end {
                        true => AHEAD,
                        false => (AHEAD + LINE * from.strides.0).wrapping_sub(k.len()),
                    };
                    let into = &mut into[line + pair..];
                    // SAFETY: vectors and elements lie inside the operand, as asserted, and the
                    // lines of the pairs inside their panel.
                    unsafe { along(into, step, from, vectors.clone(), part, ahead) };
                }
            }
        } else {
            for (pair, k) in blocks {
                for (line, vectors) in lines.clone() {
                    let into = &mut into[line + pair..];
                    // SAFETY: as above.
                    unsafe { across(into, step, from, vectors, k.clone()) };
                }
            }
        }
    }
}

/// Pairs of k that are packed for all vectors before the next pairs, which lie far away.
const FEW: usize = 4;
/// How far ahead memory is asked for, in elements of k: where they are neighbours, and where not.
const AHEAD: usize = 128;
const AHEAD_ROWS: usize = 2 * FEW;

/// Up to 16 pairs of k for up to 16 vectors whose elements are neighbours; asks for what lies `ahead`
/// of them, wherever that is.
///
/// # Safety
/// Vectors and elements lie inside `from`, 16 values for each pair, `step` apart, inside `into`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn along<T: Packable>(
    into: &mut [f32],
    step: usize,
    from: Matrix<T>,
    vectors: Range<usize>,
    k: Range<usize>,
    ahead: usize,
) {
    let start = from.values.as_ptr();
    let mut x = [_mm512_setzero_si512(); LINE];
    for (i, x) in x.iter_mut().enumerate() {
        let vector = (vectors.start + i).min(vectors.end - 1);
        // SAFETY: the caller's; masks leave out what lies past `k`.
        *x = unsafe {
            let at = start.add(vector * from.strides.0 + k.start);
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast());
            if size_of::<T>() == size_of::<f32>() {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead + LINE).cast());
            }
            T::neighbours(at, k.len())
        };
    }
    for (pair, x) in transposed(x).into_iter().enumerate() {
        if 2 * pair < k.len() {
            // SAFETY: the caller's.
            unsafe { _mm512_storeu_si512(into.as_mut_ptr().add(pair * step).cast(), x) };
        }
    }
}

/// A few pairs of k for up to 16 vectors.
///
/// # Safety
/// As for [`along`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn across<T: Packable>(
    into: &mut [f32],
    step: usize,
    from: Matrix<T>,
    vectors: Range<usize>,
    k: Range<usize>,
) {
    // Element 2 i from the first half, 2 i + 1 from the second.
    const ORDER: [u16; 2 * LINE] = {
        let mut order = [0; 2 * LINE];
        let mut i = 0;
        while i < LINE {
            order[2 * i] = i as u16;
            order[2 * i + 1] = (LINE + i) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: 32 values lie there.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    let start = from.values.as_ptr();
    let row = |k: usize| {
        // SAFETY: the caller's.
        unsafe {
            let at = start.add(vectors.start * from.strides.0 + k * from.strides.1);
            if from.strides.0 == 1 {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD_ROWS * from.strides.1).cast());
                return T::row(at, vectors.len());
            }
            let mut values = [T::ZERO; LINE];
            for (i, value) in values.iter_mut().enumerate().take(vectors.len()) {
                *value = *at.add(i * from.strides.0);
            }
            T::row(values.as_ptr(), LINE)
        }
    };
    for (pair, first) in k.clone().step_by(2).enumerate() {
        let second = (first + 1 < k.end).then(|| row(first + 1));
        // SAFETY: the CPU has what this is compiled for.
        let both = unsafe { T::join(row(first), second) };
        let x = _mm512_permutexvar_epi16(order, both);
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_si512(into.as_mut_ptr().add(pair * step).cast(), x) };
    }
}

/// What elements are packed from.
trait Packable: Copy {
    const ZERO: Self;
    /// Up to 16 of them.
    type Row: Copy;

    /// The first `count`, at most 32, from there on as bf16, and zeros behind them.
    ///
    /// # Safety
    /// They lie there; the CPU has avx512bw and avx512bf16.
    unsafe fn neighbours(at: *const Self, count: usize) -> __m512i;

    /// The first `count`, at most 16, from there on, and zeros behind them.
    ///
    /// # Safety
    /// As of [`Self::neighbours`].
    unsafe fn row(at: *const Self, count: usize) -> Self::Row;

    /// Two rows as bf16, the first below the second; zeros where there is none.
    ///
    /// # Safety
    /// The CPU has avx512bw and avx512bf16.
    unsafe fn join(first: Self::Row, second: Option<Self::Row>) -> __m512i;
}

impl Packable for f32 {
    const ZERO: Self = 0.0;
    type Row = __m512;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn neighbours(at: *const Self, count: usize) -> __m512i {
        // SAFETY: the caller's; masks leave out what lies past them.
        unsafe {
            if count == 2 * LINE {
                return rounded([_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(LINE))]);
            }
            let mask = (1u32 << count) - 1;
            let masks = [mask as __mmask16, (mask >> 16) as __mmask16];
            rounded([
                _mm512_maskz_loadu_ps(masks[0], at),
                _mm512_maskz_loadu_ps(masks[1], at.wrapping_add(LINE)),
            ])
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn row(at: *const Self, count: usize) -> __m512 {
        // SAFETY: the caller's; the mask leaves out what lies past them.
        unsafe { _mm512_maskz_loadu_ps(((1u32 << count) - 1) as __mmask16, at) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn join(first: __m512, second: Option<__m512>) -> __m512i {
        match second {
            Some(second) => rounded([first, second]),
            None => rounded([first, _mm512_setzero_ps()]),
        }
    }
}

impl Packable for bf16 {
    const ZERO: Self = Self::ZERO;
    /// In the lower half.
    type Row = __m512i;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn neighbours(at: *const Self, count: usize) -> __m512i {
        // SAFETY: the caller's; the mask leaves out what lies past them.
        unsafe {
            if count == 2 * LINE {
                return _mm512_loadu_si512(at.cast());
            }
            _mm512_maskz_loadu_epi16((1u32 << count) - 1, at.cast())
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn row(at: *const Self, count: usize) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_maskz_loadu_epi16((1u32 << count) - 1, at.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn join(first: __m512i, second: Option<__m512i>) -> __m512i {
        match second {
            Some(second) => _mm512_inserti64x4::<1>(first, _mm512_castsi512_si256(second)),
            None => first,
        }
    }
}

/// 32 values rounded to bf16, the first half below the second.
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded([low, high]: [__m512; 2]) -> __m512i {
    // SAFETY: both are 512 bits without an invalid value.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The transpose of a 16 x 16 matrix of 32-bit values.
#[target_feature(enable = "avx512f")]
fn transposed(x: [__m512i; LINE]) -> [__m512i; LINE] {
    let mut pairs = x;
    for i in (0..LINE).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    // Row 4 i + j: in each quarter q, elements 4 i .. 4 i + 4 of column 4 q + j.
    let mut fours = x;
    for i in (0..LINE).step_by(4) {
        for j in 0..2 {
            fours[i + 2 * j] = _mm512_unpacklo_epi64(pairs[i + j], pairs[i + j + 2]);
            fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(pairs[i + j], pairs[i + j + 2]);
        }
    }
    // Then the 4 x 4 matrix of quarters for each j.
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let mut columns = x;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let even = [
            _mm512_shuffle_i32x4::<EVEN>(a, b),
            _mm512_shuffle_i32x4::<EVEN>(c, d),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<ODD>(a, b),
            _mm512_shuffle_i32x4::<ODD>(c, d),
        ];
        columns[j] = _mm512_shuffle_i32x4::<EVEN>(even[0], even[1]);
        columns[4 + j] = _mm512_shuffle_i32x4::<EVEN>(odd[0], odd[1]);
        columns[8 + j] = _mm512_shuffle_i32x4::<ODD>(even[0], even[1]);
        columns[12 + j] = _mm512_shuffle_i32x4::<ODD>(odd[0], odd[1]);
    }
    columns
}
