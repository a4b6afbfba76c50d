//! Numbers of a row turned into what panels, or rows beside them, hold: slices of at most [`AT_ONCE`]
//! elements, several at a time.

use half::bf16;

use crate::kernels::cpu::simd::vectorized;

/// Elements that are turned at a time, so that they stay in the first-level cache.
pub(super) const AT_ONCE: usize = 64;

/// As they are.
pub(super) fn same<T: Copy>(to: &mut [T], from: &[T]) {
    to.copy_from_slice(from);
}

vectorized! {
    /// Rounded to the nearest bf16.
    pub(super) fn rounded(to: &mut [f32], from: &[f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(bits(from) << 16);
        }
    }
}

vectorized! {
    /// Pairs of bf16, the first in the lower half; zero is the second of a single one.
    pub(super) fn pairs<T: Bits>(to: &mut [T], from: &[f32]) {
        let (whole, rest) = from.as_chunks::<2>();
        for (to, [first, second]) in to.iter_mut().zip(whole) {
            *to = T::of(bits(*first) | bits(*second) << 16);
        }
        if let ([last], Some(to)) = (rest, to.get_mut(whole.len())) {
            *to = T::of(bits(*last));
        }
    }
}

/// What holds a pair: its bits, also in the form of an f32.
pub(super) trait Bits {
    fn of(bits: u32) -> Self;
}

impl Bits for u32 {
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits
    }
}

impl Bits for f32 {
    #[inline(always)]
    fn of(bits: u32) -> Self {
        Self::from_bits(bits)
    }
}

/// The same of numbers that are bf16.
pub(super) fn pairs_of_bf16(to: &mut [u32], from: &[bf16]) {
    let bits = |x: &bf16| u32::from(x.to_bits());
    for (to, pair) in to.iter_mut().zip(from.chunks(2)) {
        *to = bits(&pair[0]) | pair.get(1).map_or(0, bits) << 16;
    }
}

/// The bits of the nearest bf16, ties to even; a NaN keeps its sign and is quiet. As `half` rounds, without a
/// branch, which a vector loop cannot have.
#[inline(always)]
fn bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    if x.is_nan() { quiet } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_half_does() {
        let near = |x: f32| {
            (-3..=3).map(move |step| f32::from_bits(x.to_bits().wrapping_add_signed(step)))
        };
        let from: Vec<f32> = [
            0.0,
            -0.0,
            1.0,
            1.003_906_3,
            1.5,
            -2.7e-39,
            3.39e38,
            f32::MAX,
            f32::INFINITY,
        ]
        .into_iter()
        .flat_map(near)
        .chain([
            f32::NAN,
            -f32::NAN,
            f32::from_bits(0x7f80_0001),
            f32::from_bits(0xffbf_ffff),
        ])
        .collect();
        let want: Vec<u32> = from
            .iter()
            .map(|x| u32::from(bf16::from_f32(*x).to_bits()))
            .collect();
        let mut wide = vec![0.0; from.len()];
        rounded(&mut wide, &from);
        let wide: Vec<u32> = wide.into_iter().map(f32::to_bits).collect();
        assert_eq!(wide, want.iter().map(|x| x << 16).collect::<Vec<_>>());
        // An odd number of them.
        assert_eq!(from.len() % 2, 1);
        let paired: Vec<u32> = want
            .chunks(2)
            .map(|x| x[0] | x.get(1).map_or(0, |x| x << 16))
            .collect();
        let (mut whole, mut as_f32) = (vec![0u32; paired.len()], vec![0f32; paired.len()]);
        pairs(&mut whole, &from);
        pairs(&mut as_f32, &from);
        let narrow: Vec<bf16> = from.iter().map(|x| bf16::from_f32(*x)).collect();
        let mut of_bf16 = vec![0; paired.len()];
        pairs_of_bf16(&mut of_bf16, &narrow);
        let as_f32: Vec<u32> = as_f32.into_iter().map(f32::to_bits).collect();
        assert_eq!((&whole, &as_f32, &of_bf16), (&paired, &paired, &paired));
    }
}
