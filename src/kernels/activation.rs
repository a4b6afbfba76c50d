//! GELU and SwiGLU.

use candle_core::Tensor;
use rayon::prelude::*;

use super::cpu::{check_alike, each_real, fresh, read, write};
use super::profile::{Part, part};
use super::real::Real;
use super::simd::vectorized;
use crate::error::Result;

/// Elements per unit of parallel work.
const UNIT: usize = 1 << 13;

/// `x Phi(x)` with the exact normal distribution function, Hendrycks and Gimpel 2016; element by
/// element of a contiguous tensor.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    check_alike("gelu", &[x])?;
    // SAFETY: all of it is written below.
    let y = unsafe { fresh(x.shape(), x)? };
    on_gpu!(x => super::gpu::activation::gelu(x, y));
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write(&y, |y: &mut [T]| {
            let units = y.par_chunks_mut(UNIT).zip(x.par_chunks(UNIT));
            units.for_each(|(y, x)| gelu_unit(y, x));
            Ok(())
        })
    })?;
    Ok(y)
}

/// Turns `dy` into the gradient with respect to `x`, in place; returns [`gelu()`] of `x` once more,
/// which the gradient of the next weight reads.
pub fn gelu_backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    check_alike("gelu backward", &[dy, x])?;
    // SAFETY: all of it is written below.
    let y = unsafe { fresh(x.shape(), x)? };
    on_gpu!(x => super::gpu::activation::gelu_backward(dy, x, y));
    each_real!(x, T => {
        let x = read(x);
        let x = x.values::<T>()?;
        write(&y, |y: &mut [T]| {
            write(dy, |dy: &mut [T]| {
                let units = y.par_chunks_mut(UNIT).zip(dy.par_chunks_mut(UNIT));
                units.zip(x.par_chunks(UNIT)).for_each(|((y, dy), x)| gelu_back(y, dy, x));
                Ok(())
            })
        })
    })?;
    Ok(y)
}

/// `gate sigmoid(gate) up`, Shazeer 2020; element by element of contiguous tensors.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    check_alike("swiglu", &[gate, up])?;
    // SAFETY: all of it is written below.
    let y = unsafe { fresh(gate.shape(), gate)? };
    on_gpu!(gate => super::gpu::activation::swiglu(gate, up, y));
    each_real!(gate, T => {
        let (gate, up) = (read(gate), read(up));
        let (gate, up) = (gate.values::<T>()?, up.values::<T>()?);
        write(&y, |y: &mut [T]| {
            let units = y.par_chunks_mut(UNIT).zip(gate.par_chunks(UNIT));
            units.zip(up.par_chunks(UNIT)).for_each(|((y, gate), up)| swiglu_unit(y, gate, up));
            Ok(())
        })
    })?;
    Ok(y)
}

/// Turns `dy` into the gradient with respect to `up`, in place; returns [`swiglu()`] once more and the
/// gradient with respect to `gate`.
pub fn swiglu_backward(dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let _profile = part(Part::Elementwise);
    check_alike("swiglu backward", &[dy, gate, up])?;
    // SAFETY: all of it is written below.
    let (y, dgate) = unsafe { (fresh(gate.shape(), gate)?, fresh(gate.shape(), gate)?) };
    on_gpu!(gate => super::gpu::activation::swiglu_backward(dy, gate, up, (y, dgate)));
    each_real!(gate, T => {
        let (gate, up) = (read(gate), read(up));
        let (gate, up) = (gate.values::<T>()?, up.values::<T>()?);
        write(&y, |y: &mut [T]| write(&dgate, |dgate: &mut [T]| write(dy, |dy: &mut [T]| {
            let outputs = y.par_chunks_mut(UNIT).zip(dgate.par_chunks_mut(UNIT));
            let inputs = gate.par_chunks(UNIT).zip(up.par_chunks(UNIT));
            let units = outputs.zip(dy.par_chunks_mut(UNIT)).zip(inputs);
            units.for_each(|(((y, dgate), dy), (gate, up))| swiglu_back(y, dgate, dy, gate, up));
            Ok(())
        })))
    })?;
    Ok((y, dgate))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::{DType, Device};

    fn gelu_reference(x: &Tensor) -> Tensor {
        let cdf = ((x / 2f64.sqrt()).unwrap().erf().unwrap() + 1.0).unwrap();
        ((cdf * 0.5).unwrap() * x).unwrap()
    }

    /// d gelu / dx by its formula: candle's derivative of erf is off by 2e-7.
    fn gelu_slope(x: &Tensor) -> Tensor {
        let cdf = ((x / 2f64.sqrt()).unwrap().erf().unwrap() + 1.0).unwrap();
        let density = (x.sqr().unwrap() * -0.5).unwrap().exp().unwrap();
        let density = (density / (2.0 * std::f64::consts::PI).sqrt()).unwrap();
        ((cdf * 0.5).unwrap() + (x * density).unwrap()).unwrap()
    }

    #[test]
    fn gelu_equals_its_formula_forward_and_backward() {
        for shape in [[3, 5], [1, 1], [130, 129]] {
            let (x, seed) = (variable(1, &shape), variable(2, &shape));
            let want = gelu_reference(&x);
            let slope = (gelu_slope(&x) * seed.as_tensor()).unwrap();
            assert_close(&gelu(&x).unwrap(), &want, "forward");
            let dy = seed.as_tensor().copy().unwrap();
            assert_close(&gelu_backward(&dy, &x).unwrap(), &want, "forward again");
            assert_close(&dy, &slope, "dx");

            let dy = seed.to_dtype(DType::F32).unwrap();
            let y = gelu_backward(&dy, &x.to_dtype(DType::F32).unwrap()).unwrap();
            assert_near(&y, &want, 1e-6, "f32 forward");
            assert_near(&dy, &slope, 1e-6, "f32 dx");
        }
    }

    #[test]
    fn swiglu_backward_equals_autograd() {
        for shape in [[3, 5], [1, 1], [130, 129]] {
            let (gate, up) = (variable(1, &shape), variable(2, &shape));
            let seed = variable(3, &shape);
            let want = (candle_nn::ops::silu(&gate).unwrap() * up.as_tensor()).unwrap();
            assert_close(&swiglu(&gate, &up).unwrap(), &want, "forward");
            let grads = autograd(&want, &seed, &[&gate, &up]);
            let dy = seed.as_tensor().copy().unwrap();
            let (y, dgate) = swiglu_backward(&dy, &gate, &up).unwrap();
            assert_close(&y, &want, "forward again");
            assert_close(&dgate, &grads[0], "dgate");
            assert_close(&dy, &grads[1], "dup");

            let [gate, up, dy] = [&gate, &up, &seed].map(|x| x.to_dtype(DType::F32).unwrap());
            let (y, dgate) = swiglu_backward(&dy, &gate, &up).unwrap();
            assert_near(&y, &want, 1e-6, "f32 forward");
            assert_near(&dgate, &grads[0], 1e-6, "f32 dgate");
            assert_near(&dy, &grads[1], 1e-6, "f32 dup");
        }
    }

    #[test]
    fn operands_of_other_shapes_are_refused() {
        let (a, b) = (variable(1, &[3, 5]), variable(2, &[3, 4]));
        assert!(swiglu(&a, &b).is_err() && gelu_backward(&a, &b).is_err());
        let wide = b.narrow(1, 0, 1).unwrap().broadcast_as((3, 5)).unwrap();
        assert!(gelu(&wide).is_err());
    }

    #[test]
    fn activations_are_finite_far_out() {
        let x = Tensor::new(&[-1e4f32, -100., 0., 100., 1e4], &Device::Cpu).unwrap();
        let ones = || x.ones_like().unwrap();
        for y in [swiglu(&x, &ones()).unwrap(), gelu(&x).unwrap()] {
            let y: Vec<f32> = y.to_vec1().unwrap();
            assert!(y.iter().all(|y| y.is_finite()), "{y:?}");
        }
        let (_, dgate) = swiglu_backward(&ones(), &x, &ones()).unwrap();
        assert_eq!(dgate.to_vec1::<f32>().unwrap()[..1], [0.0]);
        let dy = ones();
        gelu_backward(&dy, &x).unwrap();
        assert_eq!(dy.to_vec1::<f32>().unwrap(), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }
}
