//! Activations, alone and as gates.

use candle_core::Tensor;

pub use crate::kernels::operands::activation::Activation;

use crate::error::Result;
use crate::kernels::backend::Backend;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, check_alike, fresh};
use crate::kernels::{cpu, cuda};

/// The activation, element by element of a contiguous tensor.
///
/// # Errors
/// If the tensor is not contiguous, or there is no kernel for its dtype.
pub fn apply(kind: Activation, x: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    check_alike("activation", &[x])?;
    // SAFETY: the back end writes all of it.
    let mut y = unsafe { fresh(x.shape(), x)? };
    match Backend::of(x) {
        Backend::Cpu => cpu::activation::apply(kind, x, (&mut y).into()),
        Backend::Cuda | Backend::Emulator => cuda::activation::apply(kind, x, (&mut y).into()),
    }?;
    Ok(y)
}

/// Turns `dy` into the gradient with respect to `x`, in place; returns [`apply()`] of `x` once more,
/// which the gradient of the next weight reads.
///
/// # Errors
/// If shapes differ, a tensor is not contiguous, or there is no kernel for the dtype.
pub fn apply_backward<'a>(kind: Activation, dy: impl Into<Dst<'a>>, x: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let dy = dy.into();
    check_alike("activation backward", &[&dy, x])?;
    // SAFETY: the back end writes all of it.
    let mut y = unsafe { fresh(x.shape(), x)? };
    match Backend::of(x) {
        Backend::Cpu => cpu::activation::apply_backward(kind, dy, x, (&mut y).into()),
        Backend::Cuda | Backend::Emulator => {
            cuda::activation::apply_backward(kind, dy, x, (&mut y).into())
        }
    }?;
    Ok(y)
}

/// The activation of `gate`, times `up`, Shazeer 2020: SwiGLU or GEGLU; element by element of contiguous
/// tensors.
///
/// # Errors
/// As of [`apply_backward`].
pub fn gated(kind: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    check_alike("gate", &[gate, up])?;
    // SAFETY: the back end writes all of it.
    let mut y = unsafe { fresh(gate.shape(), gate)? };
    match Backend::of(gate) {
        Backend::Cpu => cpu::activation::gated(kind, gate, up, (&mut y).into()),
        Backend::Cuda | Backend::Emulator => {
            cuda::activation::gated(kind, gate, up, (&mut y).into())
        }
    }?;
    Ok(y)
}

/// Turns `dy` into the gradient with respect to `up`, in place; returns [`gated()`] once more and the
/// gradient with respect to `gate`.
///
/// # Errors
/// As of [`apply_backward`].
pub fn gated_backward<'a>(
    kind: Activation,
    dy: impl Into<Dst<'a>>,
    gate: &Tensor,
    up: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let _profile = part(Part::Elementwise);
    let dy = dy.into();
    check_alike("gate backward", &[&dy, gate, up])?;
    // SAFETY: the back end writes all of both.
    let (mut y, mut dgate) = unsafe { (fresh(gate.shape(), gate)?, fresh(gate.shape(), gate)?) };
    let outputs = [Dst::from(&mut y), Dst::from(&mut dgate)];
    match Backend::of(gate) {
        Backend::Cpu => cpu::activation::gated_backward(kind, dy, gate, up, outputs),
        Backend::Cuda | Backend::Emulator => {
            cuda::activation::gated_backward(kind, dy, gate, up, outputs)
        }
    }?;
    Ok((y, dgate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::cpu::erf::erf_f64;
    use candle_core::{DType, Device};
    use std::f64::consts::PI;

    const KINDS: [Activation; 3] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu];

    /// An activation and its derivative by their formulas: candle's derivative of erf is off by 2e-7.
    fn at(kind: Activation, x: f64) -> [f64; 2] {
        match kind {
            Activation::Gelu => {
                let cdf = 0.5 * (1.0 + erf_f64(x / 2f64.sqrt()));
                let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
                [x * cdf, cdf + x * density]
            }
            Activation::GeluTanh => {
                let root = (2.0 / PI).sqrt();
                let tanh = (root * (x + 0.044715 * x.powi(3))).tanh();
                let inner = root * (1.0 + 3.0 * 0.044715 * x * x);
                let half = 0.5 * (1.0 + tanh);
                [x * half, half + 0.5 * x * (1.0 - tanh * tanh) * inner]
            }
            Activation::Silu => {
                let sigmoid = 1.0 / (1.0 + (-x).exp());
                [x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid))]
            }
        }
    }

    /// The same of every element.
    fn curve(kind: Activation, x: &Tensor) -> [Tensor; 2] {
        let values: Vec<f64> = x.flatten_all().unwrap().to_vec1().unwrap();
        [0, 1].map(|which| {
            let values = values.iter().map(|&x| at(kind, x)[which]);
            Tensor::from_vec(values.collect::<Vec<_>>(), x.shape(), &Device::Cpu).unwrap()
        })
    }

    fn shapes() -> impl Iterator<Item = (Activation, [usize; 2])> {
        let shapes = [[3, 5], [1, 1], [130, 129]];
        KINDS
            .into_iter()
            .flat_map(move |kind| shapes.map(|shape| (kind, shape)))
    }

    #[test]
    fn an_activation_equals_its_formula_forward_and_backward() {
        for (kind, shape) in shapes() {
            let x = (variable(1, &shape).as_tensor() * 4.0).unwrap();
            let seed = variable(2, &shape);
            let [want, slope] = curve(kind, &x);
            let slope = (slope * seed.as_tensor()).unwrap();
            assert_close(&apply(kind, &x).unwrap(), &want, "forward");
            let dy = seed.as_tensor().copy().unwrap();
            let again = apply_backward(kind, Dst::shared(&dy), &x).unwrap();
            assert_close(&again, &want, "forward again");
            assert_close(&dy, &slope, "dx");

            let dy = seed.to_dtype(DType::F32).unwrap();
            let x = x.to_dtype(DType::F32).unwrap();
            let y = apply_backward(kind, Dst::shared(&dy), &x).unwrap();
            assert_near(&y, &want, 1e-6, "f32 forward");
            assert_near(&dy, &slope, 1e-6, "f32 dx");
        }
    }

    #[test]
    fn a_gate_equals_its_formula_forward_and_backward() {
        for (kind, shape) in shapes() {
            let (gate, up) = (variable(1, &shape), variable(2, &shape));
            let seed = variable(3, &shape);
            let [share, slope] = curve(kind, &gate);
            let want = (&share * up.as_tensor()).unwrap();
            let want_up = (&share * seed.as_tensor()).unwrap();
            let want_gate = ((slope * up.as_tensor()).unwrap() * seed.as_tensor()).unwrap();
            assert_close(&gated(kind, &gate, &up).unwrap(), &want, "forward");
            let dy = seed.as_tensor().copy().unwrap();
            let (y, dgate) = gated_backward(kind, Dst::shared(&dy), &gate, &up).unwrap();
            assert_close(&y, &want, "forward again");
            assert_close(&dgate, &want_gate, "dgate");
            assert_close(&dy, &want_up, "dup");

            let [gate, up, dy] = [&gate, &up, &seed].map(|x| x.to_dtype(DType::F32).unwrap());
            let (y, dgate) = gated_backward(kind, Dst::shared(&dy), &gate, &up).unwrap();
            assert_near(&y, &want, 1e-6, "f32 forward");
            assert_near(&dgate, &want_gate, 1e-6, "f32 dgate");
            assert_near(&dy, &want_up, 1e-6, "f32 dup");
        }
    }

    /// Those that candle differentiates exactly.
    #[test]
    fn activations_equal_autograd() {
        let (x, seed) = (variable(1, &[7, 33]), variable(2, &[7, 33]));
        let inner = (x.as_tensor() + (x.powf(3.0).unwrap() * 0.044715).unwrap()).unwrap();
        let tanh = (inner * (2.0 / PI).sqrt()).unwrap().tanh().unwrap();
        let half = ((tanh + 1.0).unwrap() * 0.5).unwrap();
        for (kind, want) in [
            (Activation::GeluTanh, (x.as_tensor() * half).unwrap()),
            (Activation::Silu, x.silu().unwrap()),
        ] {
            let dy = seed.as_tensor().copy().unwrap();
            let y = apply_backward(kind, Dst::shared(&dy), &x).unwrap();
            assert_close(&y, &want, "forward");
            assert_close(&dy, &autograd(&want, &seed, &[&x])[0], "dx");
        }
    }

    #[test]
    fn operands_of_other_shapes_are_refused() {
        let (a, b) = (variable(1, &[3, 5]), variable(2, &[3, 4]));
        let wide = b.narrow(1, 0, 1).unwrap().broadcast_as((3, 5)).unwrap();
        for kind in KINDS {
            assert!(gated(kind, &a, &b).is_err());
            assert!(apply_backward(kind, Dst::shared(&a), &b).is_err());
            assert!(apply(kind, &wide).is_err());
        }
    }

    #[test]
    fn activations_are_finite_far_out() {
        let x = [-1e30f32, -1e4, -100., 0., 100., 1e4, 1e30];
        let x = Tensor::new(&x, &Device::Cpu).unwrap();
        let ones = || x.ones_like().unwrap();
        for kind in KINDS {
            for y in [gated(kind, &x, &ones()), apply(kind, &x)] {
                let y: Vec<f32> = y.unwrap().to_vec1().unwrap();
                assert!(y.iter().all(|y| y.is_finite()), "{y:?}");
            }
            let (_, dgate) = gated_backward(kind, Dst::shared(&ones()), &x, &ones()).unwrap();
            let dy = ones();
            apply_backward(kind, Dst::shared(&dy), &x).unwrap();
            for dx in [dgate, dy] {
                let dx: Vec<f32> = dx.to_vec1().unwrap();
                assert_eq!(dx, [0.0, 0.0, dx[2], 0.5, 1.0, 1.0, 1.0], "{kind:?}");
                assert!(dx[2].abs() < 1e-40, "{kind:?}");
            }
        }
    }
}
