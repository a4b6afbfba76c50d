//! Lines of 16 units in the registers of x86-64.

use std::arch::x86_64::*;

use super::{Line, Number};
use crate::kernels::cpu::lanes::LINE;

/// Numbers in f32 by AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct F32Avx512<const ROUNDED: bool>(__m512);

/// The first `count` numbers, at most 16, in f32.
///
/// # Safety
/// They lie there, and the CPU has AVX-512.
#[inline(always)]
unsafe fn wide<T: Number>(at: *const T, count: usize) -> __m512 {
    // SAFETY: the caller's; masks leave out what lies past them.
    unsafe {
        let mask = ((1u32 << count) - 1) as __mmask16;
        if T::IS_BF16 {
            let bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at.cast()));
            return _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits));
        }
        _mm512_maskz_loadu_ps(mask, at.cast())
    }
}

impl<const ROUNDED: bool> Line for F32Avx512<ROUNDED> {
    // SAFETY: 512 bits of zeros are 16 numbers.
    const ZERO: Self = Self(unsafe { std::mem::transmute::<[f32; LINE], __m512>([0.0; LINE]) });
    const PER: usize = 1;

    #[inline(always)]
    unsafe fn neighbours<T: Number>(at: *const T, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let x = wide(at, count);
            if T::IS_BF16 || !ROUNDED {
                return Self(x);
            }
            let bits = _mm512_castps_si512(x);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            // A NaN keeps its sign and is quiet.
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
            let quiet = _mm512_set1_epi32(0x0040_0000);
            let rounded = _mm512_mask_or_epi32(_mm512_add_epi32(bits, half), nan, bits, quiet);
            let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            Self(_mm512_castsi512_ps(_mm512_and_si512(rounded, upper)))
        }
    }

    #[inline(always)]
    unsafe fn unit<T: Number>(first: *const T, _: Option<*const T>, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::neighbours(first, count) }
    }

    #[inline(always)]
    unsafe fn transposed(lines: [Self; LINE]) -> [Self; LINE] {
        // SAFETY: the caller's.
        unsafe {
            let mut x = [_mm512_setzero_si512(); LINE];
            for (x, line) in x.iter_mut().zip(lines) {
                *x = _mm512_castps_si512(line.0);
            }
            let mut lines = lines;
            for (line, x) in lines.iter_mut().zip(transposed(x)) {
                *line = Self(_mm512_castsi512_ps(x));
            }
            lines
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
}

/// Pairs of bf16 by AVX512_BF16.
#[derive(Debug, Clone, Copy)]
pub struct Bf16Pairs(__m512i);

impl Line for Bf16Pairs {
    // SAFETY: 512 bits of zeros are 32 numbers.
    const ZERO: Self = Self(unsafe { std::mem::transmute::<[u32; LINE], __m512i>([0; LINE]) });
    const PER: usize = 2;

    #[inline(always)]
    unsafe fn neighbours<T: Number>(at: *const T, count: usize) -> Self {
        // SAFETY: the caller's; masks leave out what lies past them.
        unsafe {
            if T::IS_BF16 {
                let mask = ((1u64 << count) - 1) as __mmask32;
                return Self(_mm512_maskz_loadu_epi16(mask, at.cast()));
            }
            let low = count.min(LINE);
            joined(wide(at, low), wide(at.wrapping_add(LINE), count - low))
        }
    }

    #[inline(always)]
    unsafe fn unit<T: Number>(first: *const T, second: Option<*const T>, count: usize) -> Self {
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
        // SAFETY: the caller's; 32 values lie there.
        unsafe {
            let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
            let second = match second {
                Some(second) => wide(second, count),
                None => _mm512_setzero_ps(),
            };
            // Numbers that are bf16 stay what they are, but for those that the product takes for zero.
            Self(_mm512_permutexvar_epi16(
                order,
                joined(wide(first, count), second).0,
            ))
        }
    }

    #[inline(always)]
    unsafe fn transposed(lines: [Self; LINE]) -> [Self; LINE] {
        // SAFETY: the caller's.
        unsafe {
            // Not `map`, which is a call that passes them in memory.
            let (mut x, mut lines) = ([_mm512_setzero_si512(); LINE], lines);
            for (x, line) in x.iter_mut().zip(lines) {
                *x = line.0;
            }
            for (line, x) in lines.iter_mut().zip(transposed(x)) {
                *line = Self(x);
            }
            lines
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }
}

/// 32 values rounded to bf16, the first half below the second.
///
/// # Safety
/// The CPU has AVX512_BF16.
#[inline(always)]
unsafe fn joined(low: __m512, high: __m512) -> Bf16Pairs {
    // SAFETY: the caller's; both types are 512 bits without an invalid value.
    Bf16Pairs(unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) })
}

/// The transpose of a 16 x 16 matrix of 32-bit values.
///
/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn transposed(x: [__m512i; LINE]) -> [__m512i; LINE] {
    // SAFETY: the caller's.
    unsafe {
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
}

/// Numbers in f32 by AVX2.
#[derive(Debug, Clone, Copy)]
pub struct F32Avx2<const ROUNDED: bool>([__m256; 2]);

impl<const ROUNDED: bool> F32Avx2<ROUNDED> {
    /// Eight numbers.
    ///
    /// # Safety
    /// They lie there, and the CPU has AVX2.
    #[inline(always)]
    unsafe fn eight<T: Number>(at: *const T) -> __m256 {
        // SAFETY: the caller's.
        unsafe {
            if T::IS_BF16 {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                return _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits));
            }
            let x = _mm256_loadu_ps(at.cast());
            if !ROUNDED {
                return x;
            }
            let bits = _mm256_castps_si256(x);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            // A NaN keeps its sign and is quiet.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let rounded = _mm256_blendv_ps(
                _mm256_castsi256_ps(_mm256_add_epi32(bits, half)),
                _mm256_castsi256_ps(quiet),
                _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x),
            );
            let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
            _mm256_and_ps(rounded, _mm256_castsi256_ps(upper))
        }
    }
}

impl<const ROUNDED: bool> Line for F32Avx2<ROUNDED> {
    // SAFETY: 512 bits of zeros are 16 numbers.
    const ZERO: Self =
        Self(unsafe { std::mem::transmute::<[f32; LINE], [__m256; 2]>([0.0; LINE]) });
    const PER: usize = 1;

    #[inline(always)]
    unsafe fn neighbours<T: Number>(at: *const T, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            if count == LINE {
                return Self([Self::eight(at), Self::eight(at.add(8))]);
            }
            let some = T::some(at, count);
            Self([Self::eight(some.as_ptr()), Self::eight(some[8..].as_ptr())])
        }
    }

    #[inline(always)]
    unsafe fn unit<T: Number>(first: *const T, _: Option<*const T>, count: usize) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::neighbours(first, count) }
    }

    #[inline(always)]
    unsafe fn transposed(lines: [Self; LINE]) -> [Self; LINE] {
        // SAFETY: the caller's.
        unsafe {
            let mut turned = lines;
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let mut x = [_mm256_setzero_ps(); 8];
                for (x, line) in x.iter_mut().zip(&lines[8 * i..]) {
                    *x = line.0[j];
                }
                for (line, x) in turned[8 * j..].iter_mut().zip(eights(x)) {
                    line.0[i] = x;
                }
            }
            turned
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        }
    }
}

/// The transpose of an 8 x 8 matrix.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn eights(x: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller's.
    unsafe {
        let mut pairs = x;
        for i in (0..8).step_by(2) {
            pairs[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
            pairs[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
        }
        let mut fours = x;
        for i in (0..8).step_by(4) {
            for j in 0..2 {
                let (a, b) = (pairs[i + j], pairs[i + j + 2]);
                fours[i + 2 * j] = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                fours[i + 2 * j + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, b);
            }
        }
        let mut columns = x;
        for j in 0..4 {
            columns[j] = _mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]);
            columns[4 + j] = _mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]);
        }
        columns
    }
}
