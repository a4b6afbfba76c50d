//! GELU and SwiGLU in host memory.

use candle_core::Tensor;
use rayon::prelude::*;

use super::host::{each_real, read, write};
use super::real::Real;
use super::simd::vectorized;
use crate::error::Result;
use crate::kernels::tensor::Dst;

/// Elements per unit of parallel work.
const UNIT: usize = 1 << 13;

pub fn gelu(x: &Tensor, y: Dst) -> Result<()> {
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write(y, |y: &mut [T]| {
            let units = y.par_chunks_mut(UNIT).zip(x.par_chunks(UNIT));
            units.for_each(|(y, x)| gelu_unit(y, x));
            Ok(())
        })
    })
}

pub fn gelu_backward(dy: Dst, x: &Tensor, y: Dst) -> Result<()> {
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write(y, |y: &mut [T]| {
            write(dy, |dy: &mut [T]| {
                let units = y.par_chunks_mut(UNIT).zip(dy.par_chunks_mut(UNIT));
                units.zip(x.par_chunks(UNIT)).for_each(|((y, dy), x)| gelu_back(y, dy, x));
                Ok(())
            })
        })
    })
}

pub fn swiglu(gate: &Tensor, up: &Tensor, y: Dst) -> Result<()> {
    each_real!(gate, T => {
        let (gate, up) = (read(gate), read(up));
        let (gate, up) = (gate.values::<T>()?, up.values::<T>()?);
        write(y, |y: &mut [T]| {
            let units = y.par_chunks_mut(UNIT).zip(gate.par_chunks(UNIT));
            units.zip(up.par_chunks(UNIT)).for_each(|((y, gate), up)| swiglu_unit(y, gate, up));
            Ok(())
        })
    })
}

/// `y` and `dgate` are the outputs beside `dy`.
pub fn swiglu_backward(dy: Dst, gate: &Tensor, up: &Tensor, [y, dgate]: [Dst; 2]) -> Result<()> {
    each_real!(gate, T => {
        let (gate, up) = (read(gate), read(up));
        let (gate, up) = (gate.values::<T>()?, up.values::<T>()?);
        write(y, |y: &mut [T]| write(dgate, |dgate: &mut [T]| write(dy, |dy: &mut [T]| {
            let outputs = y.par_chunks_mut(UNIT).zip(dgate.par_chunks_mut(UNIT));
            let inputs = gate.par_chunks(UNIT).zip(up.par_chunks(UNIT));
            let units = outputs.zip(dy.par_chunks_mut(UNIT)).zip(inputs);
            units.for_each(|(((y, dgate), dy), (gate, up))| swiglu_back(y, dgate, dy, gate, up));
            Ok(())
        })))
    })
}

vectorized! {
    fn gelu_unit<T: Real>(y: &mut [T], x: &[T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = x * x.normal().0;
        }
    }
}

vectorized! {
    fn gelu_back<T: Real>(y: &mut [T], dy: &mut [T], x: &[T]) {
        for ((y, dy), &x) in y.iter_mut().zip(dy).zip(x) {
            let (cdf, density) = x.normal();
            *y = x * cdf;
            *dy *= cdf + x * density;
        }
    }
}

vectorized! {
    fn swiglu_unit<T: Real>(y: &mut [T], gate: &[T], up: &[T]) {
        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate * sigmoid(gate) * up;
        }
    }
}

vectorized! {
    fn swiglu_back<T: Real>(y: &mut [T], dgate: &mut [T], dy: &mut [T], gate: &[T], up: &[T]) {
        let outputs = y.iter_mut().zip(dgate).zip(dy);
        for (((y, dgate), dy), (&gate, &up)) in outputs.zip(gate.iter().zip(up)) {
            let sigma = sigmoid(gate);
            let silu = gate * sigma;
            *y = silu * up;
            *dgate = *dy * up * (sigma + silu * (T::ONE - sigma));
            *dy *= silu;
        }
    }
}

/// 1 / (1 + e^-x); e^-x may overflow, its reciprocal is then 0.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + Real::exp(-x))
}
