//! f32 and f64 as kernels see them.
//!
//! *Why*: models run in f32; tests that look past rounding run the same code in f64. The functions
//! of f32 are polynomials that the compiler can vectorise, those of f64 the exact ones.

use candle_core::{CpuStorage, WithDType};

/// What a tensor in host memory holds.
pub trait Element: WithDType {
    /// The elements of a storage of this type.
    fn elements(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! element {
    ($type:ty, $variant:ident) => {
        impl Element for $type {
            fn elements(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    };
}

element!(f32, F32);
element!(f64, F64);
element!(half::bf16, BF16);
element!(i16, I16);
element!(i64, I64);
element!(u32, U32);
element!(u8, U8);

/// f32 or f64.
pub trait Real:
    Element
    + Default
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + std::iter::Sum<Self>
{
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;

    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
    fn exp(self) -> Self;
    fn log(self) -> Self;
    fn tanh(self) -> Self;
    fn root(self) -> Self;
    /// `other` where it is larger, so never a NaN that `self` is not.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
    /// `self * by + to`, rounded once where that is one instruction of every CPU of the target.
    #[inline(always)]
    fn times_plus(self, by: Self, to: Self) -> Self {
        self * by + to
    }
    /// The standard normal's distribution function and density.
    fn normal(self) -> (Self, Self);
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = Self::NEG_INFINITY;

    #[inline(always)]
    fn of(x: f64) -> Self {
        x as Self
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    /// To 1.5e-7 of the value; 0 below exp(-86).
    #[inline(always)]
    fn exp(self) -> Self {
        // 2^23 + 2^22, where consecutive floats are 1 apart: adding it rounds to a whole number.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, the first so short that its multiples are exact.
        const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
        // Above, the result is infinite; NaN passes both comparisons by.
        let x = if self > 89.0 { 89.0 } else { self };
        let low = x < -86.0;
        let x = if low { -86.0 } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let whole = shifted - ROUND;
        let r = (x - whole * LN_2.0) - whole * LN_2.1;
        let mut p = 1.989_098_1e-4;
        for c in [
            1.393_364e-3,
            8.333_311e-3,
            4.166_646_5e-2,
            1.666_666_7e-1,
            0.5,
        ] {
            p = p * r + c;
        }
        let p = (p * r) * r + r + 1.0;
        // Half the power of two, then the other: 2^128 is not an f32.
        let half = Self::from_bits((shifted.to_bits().wrapping_add(126)) << 23);
        if low { 0.0 } else { (p * half) * 2.0 }
    }

    #[inline(always)]
    fn log(self) -> Self {
        self.ln()
    }

    /// To 2e-7 of the value.
    #[inline(always)]
    fn tanh(self) -> Self {
        let size = self.abs();
        // Near 0 the difference would cancel: there, an odd polynomial.
        let square = size * size;
        let mut p = -5.704_985e-3;
        for c in [
            2.063_908_5e-2,
            -5.373_971_5e-2,
            1.333_144_2e-1,
            -3.333_328e-1,
        ] {
            p = p * square + c;
        }
        let near = size + size * (square * p);
        let far = 1.0 - 2.0 / (Real::exp(2.0 * size) + 1.0);
        (if size < 0.625 { near } else { far }).copysign(self)
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn times_plus(self, by: Self, to: Self) -> Self {
        self.mul_add(by, to)
    }

    #[inline(always)]
    fn root(self) -> Self {
        self.sqrt()
    }

    /// The distribution function to 2e-7 of its value, from Mills' ratio as a polynomial in
    /// 1 / (1 + 0.3 |x|).
    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        let size = self.abs();
        let density = Real::exp(-0.5 * size * size) * 0.398_942_3;
        let t = 1.0 / (1.0 + 0.3 * size);
        let mut mills = -0.052_424_524;
        for c in [
            0.285_856_57,
            -0.581_634_2,
            0.493_657_07,
            -0.209_911_44,
            0.246_854_6,
            0.194_486_94,
            0.276_744_75,
            0.299_671_83,
            0.300_012_56,
        ] {
            mills = mills * t + c;
        }
        let tail = density * (mills * t);
        (if self > 0.0 { 1.0 - tail } else { tail }, density)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = Self::NEG_INFINITY;

    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn exp(self) -> Self {
        self.exp()
    }

    #[inline(always)]
    fn log(self) -> Self {
        self.ln()
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        self.tanh()
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn times_plus(self, by: Self, to: Self) -> Self {
        self.mul_add(by, to)
    }

    #[inline(always)]
    fn root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        let root = std::f64::consts::SQRT_2;
        let erf = candle_core::cpu::erf::erf_f64(self / root);
        let density = (-0.5 * self * self).exp() / (2.0 * std::f64::consts::PI).sqrt();
        (0.5 * (1.0 + erf), density)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_f32_equal_those_of_f64() {
        for i in -9_000..=9_000 {
            let x = i as f32 / 100.0;
            let (got, want) = (Real::exp(x), f64::from(x).exp());
            if (-86.0..88.7).contains(&x) {
                assert!((f64::from(got) / want - 1.0).abs() < 1.5e-7, "exp {x}");
            }
            let (got, want) = (f64::from(Real::tanh(x)), f64::from(x).tanh());
            assert!((got - want).abs() <= 2e-7 * want.abs(), "tanh {x}: {got}");
            let (cdf, density) = Real::normal(x);
            let want = Real::normal(f64::from(x));
            assert!(
                (f64::from(cdf) - want.0).abs() < 2e-7,
                "cdf {x}: {cdf} {want:?}"
            );
            assert!((f64::from(density) - want.1).abs() < 1e-7, "density {x}");
        }
        for (x, tail) in [
            (-3.0f32, 1.349_898_031_630_094_6e-3),
            (-6.0, 9.865_876_450_376_98e-10),
        ] {
            let got = f64::from(Real::normal(x).0);
            assert!((got / tail - 1.0).abs() < 2e-6, "{x}: {got}");
        }
        assert_eq!(Real::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Real::exp(-100f32), 0.0);
        assert_eq!(Real::exp(89f32), f32::INFINITY);
        assert_eq!(Real::exp(0f32), 1.0);
        assert!(Real::exp(f32::NAN).is_nan());
        assert!(Real::normal(f32::NAN).0.is_nan());
        assert_eq!(Real::tanh(-1e30f32), -1.0);
        assert_eq!(Real::tanh(1e-30f32), 1e-30);
        assert!(Real::tanh(f32::NAN).is_nan());
    }
}
