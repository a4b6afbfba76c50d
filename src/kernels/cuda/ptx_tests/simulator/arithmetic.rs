//! Instructions that make one value of up to three, for a lane alone.
//!
//! Values are bits: an instruction takes the low ones of its type, and leaves zeros above its result.

use std::cmp::Ordering;

/// What an instruction makes of its operands.
pub enum Function {
    One(fn(u64) -> u64),
    Two(fn(u64, u64) -> u64),
    Three(fn(u64, u64, u64) -> u64),
}

use Function::{One, Three, Two};

/// A type of PTX.
trait Value: Copy {
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! integers {
    ($($signed:ty, $unsigned:ty;)*) => {$(
        impl Value for $signed {
            fn of(bits: u64) -> Self {
                bits as Self
            }
            fn bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
        }
        impl Value for $unsigned {
            fn of(bits: u64) -> Self {
                bits as Self
            }
            fn bits(self) -> u64 {
                self.into()
            }
        }
    )*};
}
integers! { i16, u16; i32, u32; i64, u64; }

impl Value for f32 {
    fn of(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

impl Value for f64 {
    fn of(bits: u64) -> Self {
        Self::from_bits(bits)
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
}

impl Value for bool {
    fn of(bits: u64) -> Self {
        bits & 1 != 0
    }
    fn bits(self) -> u64 {
        self.into()
    }
}

/// A function of bits by one of values.
macro_rules! f {
    ($t:ty, |$a:ident| $made:expr) => {
        Some(One(|a| {
            let $a = <$t>::of(a);
            $made.bits()
        }))
    };
    ($t:ty, |$a:ident, $b:ident| $made:expr) => {
        Some(Two(|a, b| {
            let ($a, $b) = (<$t>::of(a), <$t>::of(b));
            $made.bits()
        }))
    };
    ($t:ty, |$a:ident, $b:ident, $c:ident| $made:expr) => {
        Some(Three(|a, b, c| {
            let ($a, $b, $c) = (<$t>::of(a), <$t>::of(b), <$t>::of(c));
            $made.bits()
        }))
    };
}

/// The function of an opcode, such as `add.s32`; `None` where it is not known.
pub fn function(opcode: &str) -> Option<Function> {
    if let Some(types) = opcode.strip_prefix("cvt.") {
        return conversion(types);
    }
    let (name, kind) = opcode.rsplit_once('.')?;
    match kind {
        "s16" => s16(name),
        "b16" | "u16" => u16(name),
        "s32" => s32(name),
        "b32" | "u32" => u32(name),
        "s64" => s64(name),
        "b64" | "u64" => u64(name),
        "f32" => f32(name).or_else(|| only_f32(name)),
        "f64" => f64(name).or_else(|| only_f64(name)),
        "pred" => predicate(name),
        _ => None,
    }
}

fn predicate(name: &str) -> Option<Function> {
    match name {
        "and" => f!(bool, |a, b| (a & b)),
        "or" => f!(bool, |a, b| (a | b)),
        "xor" => f!(bool, |a, b| (a ^ b)),
        "not" => f!(bool, |a| (!a)),
        _ => None,
    }
}

/// `$wide`: twice as many bits; `$unsigned`: as many.
macro_rules! integer {
    ($name:ident, $t:ty, $unsigned:ty, $wide:ty) => {
        fn $name(name: &str) -> Option<Function> {
            const BITS: u32 = <$t>::BITS;
            match name {
                "add" => f!($t, |a, b| a.wrapping_add(b)),
                "sub" => f!($t, |a, b| a.wrapping_sub(b)),
                "mul.lo" => f!($t, |a, b| a.wrapping_mul(b)),
                "mul.hi" => f!($t, |a, b| ((a as $wide * b as $wide) >> BITS) as $t),
                "mul.wide" => Some(Two(|a, b| {
                    (<$t>::of(a) as $wide * <$t>::of(b) as $wide) as u64
                })),
                "mad.lo" => f!($t, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
                // Division by zero gives what nobody should use.
                "div" => f!($t, |a, b| a.checked_div(b).unwrap_or(!0)),
                "rem" => f!($t, |a, b| a.checked_rem(b).unwrap_or(!0)),
                "min" => f!($t, |a, b| a.min(b)),
                "max" => f!($t, |a, b| a.max(b)),
                "neg" => f!($t, |a| a.wrapping_neg()),
                "not" => f!($t, |a| (!a)),
                "and" => f!($t, |a, b| (a & b)),
                "or" => f!($t, |a, b| (a | b)),
                "xor" => f!($t, |a, b| (a ^ b)),
                "popc" => f!($t, |a| a.count_ones()),
                // By all bits or more leaves nothing.
                "shl" => Some(Two(|a, b| {
                    <$t>::of(a).checked_shl(b as u32).unwrap_or(0).bits()
                })),
                // By all bits or more leaves the sign alone; twice half of it does that too.
                "shr" => Some(Two(|a, b| {
                    let by = (b as u32).min(BITS);
                    (<$t>::of(a) >> (by / 2) >> (by - by / 2)).bits()
                })),
                "setp.eq" => f!($t, |a, b| (a == b)),
                "setp.ne" => f!($t, |a, b| (a != b)),
                "setp.lt" | "setp.lo" => f!($t, |a, b| (a < b)),
                "setp.le" | "setp.ls" => f!($t, |a, b| (a <= b)),
                "setp.gt" | "setp.hi" => f!($t, |a, b| (a > b)),
                "setp.ge" | "setp.hs" => f!($t, |a, b| (a >= b)),
                "selp" => Some(Three(|a, b, p| <$t>::of(if p != 0 { a } else { b }).bits())),
                _ => None,
            }
        }
    };
}
integer!(s16, i16, u16, i32);
integer!(u16, u16, u16, u32);
integer!(s32, i32, u32, i64);
integer!(u32, u32, u32, u64);
integer!(s64, i64, u64, i128);
integer!(u64, u64, u64, u128);

/// What both types of floats have.
macro_rules! float {
    ($name:ident, $t:ty) => {
        fn $name(name: &str) -> Option<Function> {
            match name {
                "add" | "add.rn" => f!($t, |a, b| (a + b)),
                "sub" | "sub.rn" => f!($t, |a, b| (a - b)),
                "mul" | "mul.rn" => f!($t, |a, b| (a * b)),
                "div.rn" => f!($t, |a, b| (a / b)),
                "fma.rn" => f!($t, |a, b, c| a.mul_add(b, c)),
                "sqrt.rn" => f!($t, |a| a.sqrt()),
                "rcp.rn" => f!($t, |a| (1.0 / a)),
                "neg" => f!($t, |a| (-a)),
                "abs" => f!($t, |a| a.abs()),
                "copysign" => f!($t, |a, b| b.copysign(a)),
                "min" => f!($t, |a, b| a.min(b)),
                "max" => f!($t, |a, b| a.max(b)),
                "selp" => Some(Three(|a, b, p| <$t>::of(if p != 0 { a } else { b }).bits())),
                "setp.eq" => f!($t, |a, b| (a == b)),
                "setp.ne" => f!($t, |a, b| (a.partial_cmp(&b).is_some_and(Ordering::is_ne))),
                "setp.lt" => f!($t, |a, b| (a < b)),
                "setp.le" => f!($t, |a, b| (a <= b)),
                "setp.gt" => f!($t, |a, b| (a > b)),
                "setp.ge" => f!($t, |a, b| (a >= b)),
                // True also where one is not a number.
                "setp.equ" => f!($t, |a, b| (a.partial_cmp(&b).is_none_or(Ordering::is_eq))),
                "setp.neu" => f!($t, |a, b| (a != b)),
                "setp.ltu" => f!($t, |a, b| (a.partial_cmp(&b).is_none_or(Ordering::is_lt))),
                "setp.leu" => f!($t, |a, b| (a.partial_cmp(&b).is_none_or(Ordering::is_le))),
                "setp.gtu" => f!($t, |a, b| (a.partial_cmp(&b).is_none_or(Ordering::is_gt))),
                "setp.geu" => f!($t, |a, b| (a.partial_cmp(&b).is_none_or(Ordering::is_ge))),
                "setp.num" => f!($t, |a, b| (!a.is_nan() && !b.is_nan())),
                "setp.nan" => f!($t, |a, b| (a.is_nan() || b.is_nan())),
                _ => None,
            }
        }
    };
}
float!(f32, f32);
float!(f64, f64);

/// Approximations are the nearest number; a test's tolerance has room for those of a GPU.
fn only_f32(name: &str) -> Option<Function> {
    match name {
        "ex2.approx" => f!(f32, |a| (f64::from(a).exp2() as f32)),
        "ex2.approx.ftz" => f!(f32, |a| flushed(f64::from(flushed(a)).exp2() as f32)),
        "lg2.approx" => f!(f32, |a| (f64::from(a).log2() as f32)),
        "lg2.approx.ftz" => f!(f32, |a| (f64::from(flushed(a)).log2() as f32)),
        "rcp.approx.ftz" => f!(f32, |a| flushed(1.0 / flushed(a))),
        "rsqrt.approx" => f!(f32, |a| (f64::from(a).sqrt().recip() as f32)),
        "fma.rm" => f!(f32, |a, b, c| fused_down(a, b, c)),
        _ => None,
    }
}

/// The high half of a number alone is taken and made, as its users refine it themselves.
fn only_f64(name: &str) -> Option<Function> {
    const HIGH: u64 = !0 << 32;
    match name {
        "rcp.approx.ftz" => Some(One(|a| {
            let inverse = f64::from_bits(a & HIGH).recip();
            let inverse = if inverse.is_subnormal() {
                0.0f64.copysign(inverse)
            } else {
                inverse
            };
            inverse.to_bits() & HIGH
        })),
        _ => None,
    }
}

/// Zero in place of numbers that are less than any normal one.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() {
        0.0f32.copysign(x)
    } else {
        x
    }
}

/// a b + c, down to the next number.
fn fused_down(a: f32, b: f32, c: f32) -> f32 {
    // The product is exact; what the sum loses is found by Knuth's two-sum.
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let of_c = sum - product;
    let lost = (product - (sum - of_c)) + (c - of_c);
    let nearest = sum as f32;
    let above = f64::from(nearest) > sum || (f64::from(nearest) == sum && lost < 0.0);
    if above { nearest.next_down() } else { nearest }
}

/// To the nearest, ties to even; what is not a number becomes the one NaN of a GPU.
fn bf16(x: f32) -> u64 {
    let bits = x.to_bits();
    match x.is_nan() {
        true => 0x7fff,
        false => u64::from((bits + 0x7fff + (bits >> 16 & 1)) >> 16),
    }
}

/// A conversion by what stands behind `cvt.`: how it rounds, then the types to and from.
fn conversion(types: &str) -> Option<Function> {
    match types {
        "u16.u32" => f!(u32, |a| (a as u16)),
        "u32.u16" => f!(u16, |a| u32::from(a)),
        "u32.u64" | "s32.s64" => f!(u64, |a| (a as u32)),
        "u64.u32" => f!(u32, |a| u64::from(a)),
        "s32.s16" => f!(i16, |a| i32::from(a)),
        "s32.s8" => f!(i16, |a| i32::from(a as i8)),
        "s64.s32" => f!(i32, |a| i64::from(a)),
        "f64.f32" => f!(f32, |a| f64::from(a)),
        "rn.f32.f64" => f!(f64, |a| (a as f32)),
        "rn.f32.s32" => f!(i32, |a| (a as f32)),
        "rn.f32.u32" => f!(u32, |a| (a as f32)),
        "rn.f32.s64" => f!(i64, |a| (a as f32)),
        "rn.f64.s32" => f!(i32, |a| f64::from(a)),
        "rn.f64.s64" => f!(i64, |a| (a as f64)),
        "rn.f64.u64" => f!(u64, |a| (a as f64)),
        "rzi.s32.f32" => f!(f32, |a| (a as i32)),
        "rzi.s64.f64" => f!(f64, |a| (a as i64)),
        "rzi.f32.f32" => f!(f32, |a| a.trunc()),
        "rpi.f64.f64" => f!(f64, |a| a.ceil()),
        "sat.f32.f32" => f!(f32, |a| (if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) })),
        "rn.bf16.f32" => Some(One(|a| bf16(f32::of(a)))),
        // The first operand becomes the upper half.
        "rn.bf16x2.f32" => Some(Two(|a, b| bf16(f32::of(a)) << 16 | bf16(f32::of(b)))),
        _ => None,
    }
}
