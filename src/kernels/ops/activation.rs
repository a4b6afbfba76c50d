//! GELU and SwiGLU.

use candle_core::Tensor;

use crate::error::Result;
use crate::kernels::backend::Backend;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, check_alike, fresh};
use crate::kernels::{cpu, cuda};

/// `x Phi(x)` with the exact normal distribution function, Hendrycks and Gimpel 2016; element by
/// element of a contiguous tensor.
///
/// # Errors
/// If the tensor is not contiguous, or there is no kernel for its dtype.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    check_alike("gelu", &[x])?;
    // SAFETY: the back end writes all of it.
    let mut y = unsafe { fresh(x.shape(), x)? };
    match Backend::of(x) {
        Backend::Cpu => cpu::activation::gelu(x, (&mut y).into()),
        Backend::Cuda | Backend::Emulator => cuda::activation::gelu(x, (&mut y).into()),
    }?;
    Ok(y)
}

/// Turns `dy` into the gradient with respect to `x`, in place; returns [`gelu()`] of `x` once more,
/// which the gradient of the next weight reads.
///
/// # Errors
/// If shapes differ, a tensor is not contiguous, or there is no kernel for the dtype.
pub fn gelu_backward<'a>(dy: impl Into<Dst<'a>>, x: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let dy = dy.into();
    check_alike("gelu backward", &[&dy, x])?;
    // SAFETY: the back end writes all of it.
    let mut y = unsafe { fresh(x.shape(), x)? };
    match Backend::of(x) {
        Backend::Cpu => cpu::activation::gelu_backward(dy, x, (&mut y).into()),
        Backend::Cuda | Backend::Emulator => {
            cuda::activation::gelu_backward(dy, x, (&mut y).into())
        }
    }?;
    Ok(y)
}

/// `gate sigmoid(gate) up`, Shazeer 2020; element by element of contiguous tensors.
///
/// # Errors
/// As of [`gelu_backward`].
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    check_alike("swiglu", &[gate, up])?;
    // SAFETY: the back end writes all of it.
    let mut y = unsafe { fresh(gate.shape(), gate)? };
    match Backend::of(gate) {
        Backend::Cpu => cpu::activation::swiglu(gate, up, (&mut y).into()),
        Backend::Cuda | Backend::Emulator => cuda::activation::swiglu(gate, up, (&mut y).into()),
    }?;
    Ok(y)
}

/// Turns `dy` into the gradient with respect to `up`, in place; returns [`swiglu()`] once more and the
/// gradient with respect to `gate`.
///
/// # Errors
/// As of [`gelu_backward`].
pub fn swiglu_backward<'a>(
    dy: impl Into<Dst<'a>>,
    gate: &Tensor,
    up: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let _profile = part(Part::Elementwise);
    let dy = dy.into();
    check_alike("swiglu backward", &[&dy, gate, up])?;
    // SAFETY: the back end writes all of both.
    let (mut y, mut dgate) = unsafe { (fresh(gate.shape(), gate)?, fresh(gate.shape(), gate)?) };
    let outputs = [Dst::from(&mut y), Dst::from(&mut dgate)];
    match Backend::of(gate) {
        Backend::Cpu => cpu::activation::swiglu_backward(dy, gate, up, outputs),
        Backend::Cuda | Backend::Emulator => {
            cuda::activation::swiglu_backward(dy, gate, up, outputs)
        }
    }?;
    Ok((y, dgate))
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
            assert_close(
                &gelu_backward(Dst::shared(&dy), &x).unwrap(),
                &want,
                "forward again",
            );
            assert_close(&dy, &slope, "dx");

            let dy = seed.to_dtype(DType::F32).unwrap();
            let y = gelu_backward(Dst::shared(&dy), &x.to_dtype(DType::F32).unwrap()).unwrap();
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
            let (y, dgate) = swiglu_backward(Dst::shared(&dy), &gate, &up).unwrap();
            assert_close(&y, &want, "forward again");
            assert_close(&dgate, &grads[0], "dgate");
            assert_close(&dy, &grads[1], "dup");

            let [gate, up, dy] = [&gate, &up, &seed].map(|x| x.to_dtype(DType::F32).unwrap());
            let (y, dgate) = swiglu_backward(Dst::shared(&dy), &gate, &up).unwrap();
            assert_near(&y, &want, 1e-6, "f32 forward");
            assert_near(&dgate, &grads[0], 1e-6, "f32 dgate");
            assert_near(&dy, &grads[1], 1e-6, "f32 dup");
        }
    }

    #[test]
    fn operands_of_other_shapes_are_refused() {
        let (a, b) = (variable(1, &[3, 5]), variable(2, &[3, 4]));
        assert!(swiglu(&a, &b).is_err() && gelu_backward(Dst::shared(&a), &b).is_err());
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
        let (_, dgate) = swiglu_backward(Dst::shared(&ones()), &x, &ones()).unwrap();
        assert_eq!(dgate.to_vec1::<f32>().unwrap()[..1], [0.0]);
        let dy = ones();
        gelu_backward(Dst::shared(&dy), &x).unwrap();
        assert_eq!(dy.to_vec1::<f32>().unwrap(), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }
}
