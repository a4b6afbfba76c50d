//! Blocks of NF4 by AVX-512: the 16 values of a block are one register, which codes choose from.

use std::arch::x86_64::*;

use half::bf16;

use crate::kernels::cpu::level::{Level, level};

/// A block in f32; false where the CPU lacks the instructions.
#[inline(always)]
pub(super) fn nf4_f32(codes: &[u8; 32], map: &[f32; 16], scale: f32, out: &mut [f32; 64]) -> bool {
    match level() {
        // SAFETY: the CPU has what it is compiled for.
        Level::Avx512 | Level::Avx512Bf16 => unsafe { wide_f32(codes, map, scale, out) },
        _ => return false,
    }
    true
}

/// A block rounded to bf16; false where the CPU lacks the instructions.
#[inline(always)]
pub(super) fn nf4_bf16(
    codes: &[u8; 32],
    map: &[f32; 16],
    scale: f32,
    out: &mut [bf16; 64],
) -> bool {
    match level() {
        // SAFETY: the CPU has what it is compiled for.
        Level::Avx512 | Level::Avx512Bf16 => unsafe { wide_bf16(codes, map, scale, out) },
        _ => return false,
    }
    true
}

/// The block's values, and its codes, 16 bytes in 16 lanes: of a byte in the high half comes first.
#[inline]
#[target_feature(enable = "avx512f")]
fn operands(codes: &[u8; 32], map: &[f32; 16], scale: f32) -> (__m512, [__m512i; 2]) {
    // SAFETY: as many values and bytes lie there.
    unsafe {
        let values = _mm512_mul_ps(_mm512_loadu_ps(map.as_ptr()), _mm512_set1_ps(scale));
        let half = |i: usize| _mm512_cvtepu8_epi32(_mm_loadu_si128(codes[i..].as_ptr().cast()));
        (values, [half(0), half(16)])
    }
}

#[target_feature(enable = "avx512f")]
fn wide_f32(codes: &[u8; 32], map: &[f32; 16], scale: f32, out: &mut [f32; 64]) {
    let (values, halves) = operands(codes, map, scale);
    // The first of each byte, then the second: lanes 16 on are those of the other register.
    let turns = [
        _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),
        _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8),
    ];
    for (bytes, out) in halves.into_iter().zip(out.as_chunks_mut::<32>().0) {
        // Of an index the low four bits count.
        let second = _mm512_permutexvar_ps(bytes, values);
        let first = _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(bytes), values);
        for (turn, out) in turns.into_iter().zip(out.as_chunks_mut::<16>().0) {
            let both = _mm512_permutex2var_ps(first, turn, second);
            // SAFETY: 16 values have room there.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), both) };
        }
    }
}

#[target_feature(enable = "avx512f")]
fn wide_bf16(codes: &[u8; 32], map: &[f32; 16], scale: f32, out: &mut [bf16; 64]) {
    let (values, halves) = operands(codes, map, scale);
    // To the nearest, ties to even.
    let bits = _mm512_castps_si512(values);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    let low = _mm512_srli_epi32::<16>(bits);
    let high = _mm512_slli_epi32::<16>(low);
    for (bytes, out) in halves.into_iter().zip(out.as_chunks_mut::<32>().0) {
        // A byte gives a lane: its first number lies in the lower half.
        let first = _mm512_permutexvar_epi32(_mm512_srli_epi32::<4>(bytes), low);
        let second = _mm512_permutexvar_epi32(bytes, high);
        // SAFETY: 32 values have room there.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_or_si512(first, second)) };
    }
}
