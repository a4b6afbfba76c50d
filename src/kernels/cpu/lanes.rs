//! 16 numbers, one of each row or column of a panel, as vector registers hold them.
//!
//! Hides the instruction set. Every function is compiled into its caller, which says what the CPU has.

use super::real::Real;
use crate::kernels::operands::packed::PANEL;

/// How many numbers.
pub(super) const LINE: usize = PANEL;

/// Numbers of 16 rows.
///
/// # Safety
/// Of every function: the CPU has the instructions of the type, and pointers are those of as many
/// elements as it reads or writes.
pub(super) trait Lanes: Copy {
    type Element: Real;
    unsafe fn splat(x: Self::Element) -> Self;
    unsafe fn load(from: *const Self::Element) -> Self;
    unsafe fn store(self, to: *mut Self::Element);
    /// `self + x * w`.
    unsafe fn add_product(self, x: Self, w: Self) -> Self;
    /// `self + other`.
    unsafe fn plus(self, other: Self) -> Self;
}

/// Numbers stored in fewer bits than f32, read into 16 lanes of f32.
///
/// # Safety
/// As of [`Lanes`].
pub(super) trait Decode: Lanes<Element = f32> {
    /// The 16 values of codes.
    type Table: Copy;
    /// The first of 16 pairs of bf16.
    unsafe fn first_of_pairs(from: *const u8) -> Self;
    /// The second.
    unsafe fn second_of_pairs(from: *const u8) -> Self;
    /// 16 signed bytes.
    unsafe fn signed_bytes(from: *const u8) -> Self;
    /// 16 f16.
    unsafe fn halves(from: *const u8) -> Self;
    unsafe fn table(values: *const f32) -> Self::Table;
    /// The values of 16 codes: those of the low halves of 8 bytes, then those of the high halves.
    unsafe fn values(table: Self::Table, from: *const u8) -> Self;
    unsafe fn times(self, other: Self) -> Self;
}

/// Plain numbers, which compilers put into the vectors that every CPU of the target has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain<T>([T; PANEL]);

impl<T: Real> Lanes for Plain<T> {
    type Element = T;

    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        Self([x; PANEL])
    }

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[T; PANEL]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[T; PANEL]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add_product(mut self, x: Self, w: Self) -> Self {
        for ((sum, x), w) in self.0.iter_mut().zip(x.0).zip(w.0) {
            *sum = x.times_plus(w, *sum);
        }
        self
    }

    #[inline(always)]
    unsafe fn plus(mut self, other: Self) -> Self {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(sum, x)| *sum += x);
        self
    }
}

impl Plain<f32> {
    #[inline(always)]
    fn of(f: impl Fn(usize) -> f32) -> Self {
        Self(std::array::from_fn(f))
    }
}

impl Decode for Plain<f32> {
    type Table = [f32; 16];

    #[inline(always)]
    unsafe fn first_of_pairs(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let pairs = unsafe { from.cast::<[u32; PANEL]>().read_unaligned() };
        Self::of(|i| f32::from_bits(pairs[i] << 16))
    }

    #[inline(always)]
    unsafe fn second_of_pairs(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let pairs = unsafe { from.cast::<[u32; PANEL]>().read_unaligned() };
        Self::of(|i| f32::from_bits(pairs[i] & 0xffff_0000))
    }

    #[inline(always)]
    unsafe fn signed_bytes(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let bytes = unsafe { from.cast::<[i8; PANEL]>().read_unaligned() };
        Self::of(|i| f32::from(bytes[i]))
    }

    #[inline(always)]
    unsafe fn halves(from: *const u8) -> Self {
        // SAFETY: the caller's.
        let bits = unsafe { from.cast::<[u16; PANEL]>().read_unaligned() };
        Self::of(|i| half::f16::from_bits(bits[i]).to_f32())
    }

    #[inline(always)]
    unsafe fn table(values: *const f32) -> [f32; 16] {
        // SAFETY: the caller's.
        unsafe { values.cast::<[f32; 16]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn values(table: [f32; 16], from: *const u8) -> Self {
        // SAFETY: the caller's.
        let codes = unsafe { from.cast::<[u8; PANEL / 2]>().read_unaligned() };
        Self::of(|i| {
            let code = codes[i % 8] >> (i / 8 * 4) & 15;
            table[usize::from(code)]
        })
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        Self::of(|i| self.0[i] * other.0[i])
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Avx512Bf16};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Decode, Lanes};

    /// By AVX2, FMA and F16C.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx2([__m256; 2]);

    impl Lanes for Avx2 {
        type Element = f32;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller's.
            Self([unsafe { _mm256_set1_ps(x) }; 2])
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's.
            unsafe { Self([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's.
            unsafe {
                _mm256_storeu_ps(to, self.0[0]);
                _mm256_storeu_ps(to.add(8), self.0[1]);
            }
        }

        #[inline(always)]
        unsafe fn add_product(self, x: Self, w: Self) -> Self {
            // SAFETY: the caller's.
            let part = |i: usize| unsafe { _mm256_fmadd_ps(x.0[i], w.0[i], self.0[i]) };
            Self([part(0), part(1)])
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            // SAFETY: the caller's.
            let part = |i: usize| unsafe { _mm256_add_ps(self.0[i], other.0[i]) };
            Self([part(0), part(1)])
        }
    }

    impl Decode for Avx2 {
        type Table = [__m256; 2];

        #[inline(always)]
        unsafe fn first_of_pairs(from: *const u8) -> Self {
            // SAFETY: the caller's.
            let part = |i: usize| unsafe {
                let pairs = _mm256_loadu_si256(from.add(32 * i).cast());
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs))
            };
            Self([part(0), part(1)])
        }

        #[inline(always)]
        unsafe fn second_of_pairs(from: *const u8) -> Self {
            // SAFETY: the caller's.
            let part = |i: usize| unsafe {
                let pairs = _mm256_loadu_si256(from.add(32 * i).cast());
                let upper = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
                _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))
            };
            Self([part(0), part(1)])
        }

        #[inline(always)]
        unsafe fn signed_bytes(from: *const u8) -> Self {
            // SAFETY: the caller's.
            let part = |i: usize| unsafe {
                let bytes = _mm_loadl_epi64(from.add(8 * i).cast());
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
            };
            Self([part(0), part(1)])
        }

        #[inline(always)]
        unsafe fn halves(from: *const u8) -> Self {
            // SAFETY: the caller's.
            let part =
                |i: usize| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.add(16 * i).cast())) };
            Self([part(0), part(1)])
        }

        #[inline(always)]
        unsafe fn table(values: *const f32) -> [__m256; 2] {
            // SAFETY: the caller's.
            unsafe { [_mm256_loadu_ps(values), _mm256_loadu_ps(values.add(8))] }
        }

        #[inline(always)]
        unsafe fn values(table: [__m256; 2], from: *const u8) -> Self {
            // SAFETY: the caller's. Of an index the low three bits count; the fourth, moved to the
            // sign, chooses the half of the table.
            unsafe {
                let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
                let of = |codes: __m256i| {
                    let low = _mm256_permutevar8x32_ps(table[0], codes);
                    let high = _mm256_permutevar8x32_ps(table[1], codes);
                    let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
                    _mm256_blendv_ps(low, high, upper)
                };
                Self([of(bytes), of(_mm256_srli_epi32::<4>(bytes))])
            }
        }

        #[inline(always)]
        unsafe fn times(self, other: Self) -> Self {
            // SAFETY: the caller's.
            let part = |i: usize| unsafe { _mm256_mul_ps(self.0[i], other.0[i]) };
            Self([part(0), part(1)])
        }
    }

    /// By AVX-512.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx512(__m512);

    impl Lanes for Avx512 {
        type Element = f32;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, x: Self, w: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_fmadd_ps(x.0, w.0, self.0) })
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
    }

    impl Decode for Avx512 {
        type Table = __m512;

        #[inline(always)]
        unsafe fn first_of_pairs(from: *const u8) -> Self {
            // SAFETY: the caller's.
            Self(unsafe {
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_loadu_si512(from.cast())))
            })
        }

        #[inline(always)]
        unsafe fn second_of_pairs(from: *const u8) -> Self {
            // SAFETY: the caller's.
            Self(unsafe {
                let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
                _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(from.cast()), upper))
            })
        }

        #[inline(always)]
        unsafe fn signed_bytes(from: *const u8) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
        }

        #[inline(always)]
        unsafe fn halves(from: *const u8) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
        }

        #[inline(always)]
        unsafe fn table(values: *const f32) -> __m512 {
            // SAFETY: the caller's.
            unsafe { _mm512_loadu_ps(values) }
        }

        #[inline(always)]
        unsafe fn values(table: __m512, from: *const u8) -> Self {
            // SAFETY: the caller's. Of an index the low four bits count.
            Self(unsafe {
                let bytes = _mm_loadl_epi64(from.cast());
                let both = _mm_unpacklo_epi64(bytes, _mm_srli_epi16::<4>(bytes));
                _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(both), table)
            })
        }

        #[inline(always)]
        unsafe fn times(self, other: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
    }

    /// Pairs of bf16, each in the bits of an f32, by AVX512_BF16; sums are f32.
    #[derive(Debug, Clone, Copy)]
    pub struct Avx512Bf16(__m512);

    impl Lanes for Avx512Bf16 {
        type Element = f32;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, x: Self, w: Self) -> Self {
            // SAFETY: the caller's; both types are 512 bits without an invalid value.
            unsafe {
                let [x, w]: [__m512bh; 2] = std::mem::transmute([x.0, w.0]);
                Self(_mm512_dpbf16_ps(self.0, x, w))
            }
        }

        #[inline(always)]
        unsafe fn plus(self, other: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
    }
}

/// Has the CPU fetch a cache line, which may lie anywhere.
#[inline(always)]
pub(super) fn fetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU can, and nothing is read.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
