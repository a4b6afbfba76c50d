//! Activations in host memory, alone and as gates.

use candle_core::Tensor;
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::vectorized;
use crate::error::Result;
use crate::kernels::operands::activation::Activation;
use crate::kernels::tensor::Dst;

/// Elements per unit of parallel work.
const UNIT: usize = 1 << 13;

pub fn apply(kind: Activation, x: &Tensor, y: Dst) -> Result<()> {
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write(y, |y: &mut [T]| {
            let units = y.par_chunks_mut(UNIT).zip(x.par_chunks(UNIT));
            units.for_each(|(y, x)| apply_unit(kind, y, x));
            Ok(())
        })
    })
}

pub fn apply_backward(kind: Activation, dy: Dst, x: &Tensor, y: Dst) -> Result<()> {
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write(y, |y: &mut [T]| {
            write(dy, |dy: &mut [T]| {
                let units = y.par_chunks_mut(UNIT).zip(dy.par_chunks_mut(UNIT));
                units.zip(x.par_chunks(UNIT)).for_each(|((y, dy), x)| apply_back(kind, y, dy, x));
                Ok(())
            })
        })
    })
}

pub fn gated(kind: Activation, gate: &Tensor, up: &Tensor, y: Dst) -> Result<()> {
    each_real!(gate, T => {
        let (gate, up) = (read(gate), read(up));
        let (gate, up) = (gate.values::<T>()?, up.values::<T>()?);
        write(y, |y: &mut [T]| {
            let units = y.par_chunks_mut(UNIT).zip(gate.par_chunks(UNIT));
            units.zip(up.par_chunks(UNIT)).for_each(|((y, gate), up)| gated_unit(kind, y, gate, up));
            Ok(())
        })
    })
}

/// `y` and `dgate` are the outputs beside `dy`.
pub fn gated_backward(
    kind: Activation,
    dy: Dst,
    gate: &Tensor,
    up: &Tensor,
    [y, dgate]: [Dst; 2],
) -> Result<()> {
    each_real!(gate, T => {
        let (gate, up) = (read(gate), read(up));
        let (gate, up) = (gate.values::<T>()?, up.values::<T>()?);
        write(y, |y: &mut [T]| write(dgate, |dgate: &mut [T]| write(dy, |dy: &mut [T]| {
            let outputs = y.par_chunks_mut(UNIT).zip(dgate.par_chunks_mut(UNIT));
            let inputs = gate.par_chunks(UNIT).zip(up.par_chunks(UNIT));
            let units = outputs.zip(dy.par_chunks_mut(UNIT)).zip(inputs);
            units.for_each(|(((y, dgate), dy), (gate, up))| gated_back(kind, y, dgate, dy, gate, up));
            Ok(())
        })))
    })
}

/// What an activation is at one number.
trait Curve {
    /// What the number is multiplied by.
    fn share<T: Real>(x: T) -> T;
    /// The activation, and its derivative.
    fn at<T: Real>(x: T) -> [T; 2];
}

struct Gelu;
struct GeluTanh;
struct Silu;

impl Curve for Gelu {
    #[inline(always)]
    fn share<T: Real>(x: T) -> T {
        x.normal().0
    }

    #[inline(always)]
    fn at<T: Real>(x: T) -> [T; 2] {
        let (cdf, density) = x.normal();
        [x * cdf, cdf + x * density]
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn share<T: Real>(x: T) -> T {
        Self::shares(x)[0]
    }

    #[inline(always)]
    fn at<T: Real>(x: T) -> [T; 2] {
        let [share, other] = Self::shares(x);
        let y = x * share;
        let rest = y * other;
        let inner = T::of(TWICE) * (T::ONE + T::of(3.0 * CUBE) * (x * x));
        // A share of 0 or 1 stays so, wherever the square of x overflows.
        let rest = if rest == T::ZERO {
            T::ZERO
        } else {
            rest * inner
        };
        [y, share + rest]
    }
}

impl GeluTanh {
    /// `(1 + tanh(z)) / 2`, which is the sigmoid of 2 z, and 1 less it; neither is a difference, in which
    /// digits would cancel.
    #[inline(always)]
    fn shares<T: Real>(x: T) -> [T; 2] {
        let [twice, cube] = [TWICE, CUBE].map(T::of);
        let z = twice * (x + cube * (x * x * x));
        let below = z < T::ZERO;
        let e = Real::exp(if below { z } else { -z });
        let large = T::ONE / (T::ONE + e);
        let small = e * large;
        if below {
            [small, large]
        } else {
            [large, small]
        }
    }
}

impl Curve for Silu {
    #[inline(always)]
    fn share<T: Real>(x: T) -> T {
        sigmoid(x)
    }

    #[inline(always)]
    fn at<T: Real>(x: T) -> [T; 2] {
        let share = sigmoid(x);
        let y = x * share;
        [y, share + y * (T::ONE - share)]
    }
}

/// `2 sqrt(2 / pi)`.
const TWICE: f64 = 1.595_769_121_605_730_8;
/// The factor of the cube in the approximation of GELU.
const CUBE: f64 = 0.044_715;

/// Runs an expression with `$curve` as the activation.
macro_rules! each_curve {
    ($kind:expr, $curve:ident => $body:expr) => {
        match $kind {
            Activation::Gelu => {
                type $curve = Gelu;
                $body
            }
            Activation::GeluTanh => {
                type $curve = GeluTanh;
                $body
            }
            Activation::Silu => {
                type $curve = Silu;
                $body
            }
        }
    };
}

vectorized! {
    fn apply_unit<T: Real>(kind: Activation, y: &mut [T], x: &[T]) {
        each_curve!(kind, C => for (y, &x) in y.iter_mut().zip(x) {
            *y = x * C::share(x);
        });
    }
}

vectorized! {
    fn apply_back<T: Real>(kind: Activation, y: &mut [T], dy: &mut [T], x: &[T]) {
        each_curve!(kind, C => for ((y, dy), &x) in y.iter_mut().zip(dy).zip(x) {
            let [out, slope] = C::at(x);
            *y = out;
            *dy *= slope;
        });
    }
}

vectorized! {
    fn gated_unit<T: Real>(kind: Activation, y: &mut [T], gate: &[T], up: &[T]) {
        each_curve!(kind, C => for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate * C::share(gate) * up;
        });
    }
}

vectorized! {
    fn gated_back<T: Real>(
        kind: Activation,
        y: &mut [T],
        dgate: &mut [T],
        dy: &mut [T],
        gate: &[T],
        up: &[T],
    ) {
        let outputs = y.iter_mut().zip(dgate).zip(dy);
        let all = outputs.zip(gate.iter().zip(up));
        each_curve!(kind, C => for (((y, dgate), dy), (&gate, &up)) in all {
            let [out, slope] = C::at(gate);
            *y = out * up;
            *dgate = *dy * up * slope;
            *dy *= out;
        });
    }
}

/// 1 / (1 + e^-x); e^-x may overflow, its reciprocal is then 0.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + Real::exp(-x))
}
