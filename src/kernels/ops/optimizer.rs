//! Optimizer updates over flat buffers, in place, in one pass.
//!
//! *Why*: an update is bound by memory. Each element of weights, moments and gradient is read once
//! and each of weights and moments written once. Bytes moved per parameter and update of Adam, and
//! kept between updates:
//!
//! | weights | moments | moved | kept |
//! | --- | --- | --- | --- |
//! | [`Weights::Plain`], f32 | f32 | 28 | 12 |
//! | [`Weights::Master`], bf16 beside f32 | f32 | 30 | 14 |
//! | [`Weights::Split`], bf16 and what it lacks | bf16 | 20 | 8 |
//!
//! of which 4 are the read of an f32 gradient. RMSprop has one moment less: 20, 22 and 16.

use candle_core::Tensor;

pub use crate::kernels::operands::optimizer::{Adam, Decayed, RmsProp, Weights};

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::profile::{self, Part};
use crate::kernels::tensor::Dst;
use crate::kernels::{cpu, cuda};

/// The sum of squares of a contiguous tensor, accumulated in f64. The host waits for it on a GPU.
///
/// # Errors
/// If the tensor is not contiguous, or there is no kernel for its dtype.
pub fn squared_norm(x: &Tensor) -> Result<f64> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[x])?;
    match Backend::of(x) {
        Backend::Cpu => cpu::optimizer::squared_norm(x),
        Backend::Cuda | Backend::Emulator => cuda::optimizer::squared_norm(x),
    }
}

/// Moves the averages `mean` and `square` towards `gradient * scale` and its square, and then the
/// weights: `w -= rate * (weight_decay * w + mean' / (sqrt(square') + epsilon))`, where the primes
/// are the averages without their bias towards zero. Tensors are (n); `decayed` has the elements
/// that weight decay applies to. On a GPU the gradient is f32, and the moments are f32, or
/// bf16 beside [`Weights::Split`]: rounded up or down by chance, so that the mean of many is right.
///
/// # Errors
/// If the tensors are not contiguous and of one length, or there is no kernel for their dtypes.
pub fn adam(
    adam: &Adam,
    decayed: &Decayed,
    weights: Weights,
    (mean, square): (Dst, Dst),
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[&weights.tensors()[..], &[&mean, &square, gradient]].concat())?;
    let (moments, gradient) = ((mean, square), (gradient, scale));
    match Backend::of(gradient.0) {
        Backend::Cpu => cpu::optimizer::adam(adam, decayed, weights, moments, gradient),
        Backend::Cuda | Backend::Emulator => {
            cuda::optimizer::adam(adam, decayed, weights, moments, gradient)
        }
    }
}

/// `square` moves towards the square of x = `gradient * scale` with decay `alpha`, then
/// `w -= rate * x / (sqrt(square) + epsilon)`. Tensors are (n), of the types of [`adam`].
///
/// # Errors
/// As of [`adam`].
pub fn rmsprop(
    rmsprop: &RmsProp,
    weights: Weights,
    square: Dst,
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[&weights.tensors()[..], &[&square, gradient]].concat())?;
    let gradient = (gradient, scale);
    match Backend::of(gradient.0) {
        Backend::Cpu => cpu::optimizer::rmsprop(rmsprop, weights, square, gradient),
        Backend::Cuda | Backend::Emulator => {
            cuda::optimizer::rmsprop(rmsprop, weights, square, gradient)
        }
    }
}

/// # Errors
/// If the tensors are not contiguous, or not of one length.
fn check_flat(tensors: &[&Tensor]) -> Result<()> {
    let lengths = tensors.iter().map(|x| x.elem_count());
    if tensors.iter().all(|x| x.is_contiguous())
        && lengths.clone().all(|n| Some(n) == lengths.clone().next())
    {
        return Ok(());
    }
    let lengths: Vec<usize> = lengths.collect();
    Err(Error::failed(format!(
        "optimizer buffers must be contiguous and of one length, not {lengths:?}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::optimizer::UNIT;
    use crate::kernels::testing::*;
    use candle_core::{DType, Device};

    fn values(x: &Tensor) -> Vec<f64> {
        x.to_vec1().unwrap()
    }

    #[test]
    fn adam_follows_its_formula_over_several_steps() {
        let n = UNIT + 77;
        // Inside a unit, over its end, and at the very last element.
        let decayed = [3..5, UNIT - 2..UNIT + 40, n - 1..n];
        let marked = Decayed::new(decayed.to_vec(), &Device::Cpu).unwrap();
        let mut weights = variable(1, &[n]).as_tensor().copy().unwrap();
        let (mut mean, mut square) = (zeros_like(&weights), zeros_like(&weights));
        let (mut w, mut m, mut v) = (values(&weights), vec![0.0; n], vec![0.0; n]);
        for step in 1..=4u64 {
            let gradient = variable(step + 10, &[n]);
            let update = Adam {
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-3,
                rate: 0.1,
                weight_decay: 0.2,
                step,
            };
            adam(
                &update,
                &marked,
                Weights::Plain((&mut weights).into()),
                ((&mut mean).into(), (&mut square).into()),
                (&gradient, 0.5),
            )
            .unwrap();
            for (i, g) in values(&gradient).iter().map(|g| g * 0.5).enumerate() {
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let mean = m[i] / (1.0 - 0.9f64.powi(step as i32));
                let square = v[i] / (1.0 - 0.99f64.powi(step as i32));
                let decays = decayed.iter().any(|range| range.contains(&i));
                let decay = if decays { 0.2 } else { 0.0 };
                w[i] -= 0.1 * (decay * w[i] + mean / (square.sqrt() + 1e-3));
            }
        }
        for (got, want) in values(&weights).iter().zip(w) {
            assert!((got - want).abs() < 1e-14, "{got} {want}");
        }
        assert!(
            values(&mean)
                .iter()
                .zip(m)
                .all(|(a, b)| (a - b).abs() < 1e-15)
        );
        assert!(
            values(&square)
                .iter()
                .zip(v)
                .all(|(a, b)| (a - b).abs() < 1e-15)
        );
    }

    #[test]
    fn rmsprop_follows_its_formula() {
        let n = UNIT + 3;
        let mut weights = variable(1, &[n]).as_tensor().copy().unwrap();
        let (gradient, mut square) = (variable(2, &[n]), zeros_like(&weights));
        let want: Vec<f64> = values(&weights)
            .iter()
            .zip(values(&gradient))
            .map(|(w, g)| w - 0.1 * 0.5 * g / ((0.01 * 0.25 * g * g).sqrt() + 1e-8))
            .collect();
        let update = RmsProp {
            alpha: 0.99,
            epsilon: 1e-8,
            rate: 0.1,
            step: 1,
        };
        let plain = Weights::Plain((&mut weights).into());
        rmsprop(&update, plain, (&mut square).into(), (&gradient, 0.5)).unwrap();
        for (got, want) in values(&weights).iter().zip(want) {
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn f32_follows_f64() {
        let n = 1000;
        let run = |dtype: DType| {
            let make = |seed| {
                variable(seed, &[n])
                    .to_dtype(dtype)
                    .unwrap()
                    .copy()
                    .unwrap()
            };
            let (mut weights, gradient) = (make(1), make(2));
            let (mut mean, mut square) =
                (weights.zeros_like().unwrap(), weights.zeros_like().unwrap());
            let update = Adam {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                rate: 0.01,
                weight_decay: 0.1,
                step: 1,
            };
            let moments = ((&mut mean).into(), (&mut square).into());
            let all = Decayed::new(std::iter::once(0..n).collect(), &Device::Cpu).unwrap();
            let plain = Weights::Plain((&mut weights).into());
            adam(&update, &all, plain, moments, (&gradient, 1.0)).unwrap();
            values(&weights.to_dtype(DType::F64).unwrap())
        };
        for (got, want) in run(DType::F32).iter().zip(run(DType::F64)) {
            assert!((got - want).abs() < 2e-7, "{got} {want}");
        }
    }

    #[test]
    fn buffers_of_other_lengths_or_types_are_refused() {
        let update = RmsProp {
            alpha: 0.99,
            epsilon: 1e-8,
            rate: 0.1,
            step: 1,
        };
        let [weights, gradient, square] = [(1, 4), (1, 4), (2, 3)].map(|(seed, n)| {
            let x = variable(seed, &[n]);
            x.as_tensor().copy().unwrap()
        });
        let (mut weights, mut square) = (weights, square);
        let plain = Weights::Plain((&mut weights).into());
        let error = rmsprop(&update, plain, (&mut square).into(), (&gradient, 1.0)).unwrap_err();
        assert!(error.to_string().contains("[4, 3, 4]"), "{error}");
        let square = square.to_dtype(DType::F32).unwrap();
        let mut square = Tensor::cat(&[&square, &square.narrow(0, 0, 1).unwrap()], 0).unwrap();
        let gradient = zeros_like(&weights);
        let plain = Weights::Plain((&mut weights).into());
        assert!(rmsprop(&update, plain, (&mut square).into(), (&gradient, 1.0)).is_err());
    }

    #[test]
    fn the_norm_sums_in_f64() {
        let x = Tensor::from_vec(vec![1e-4f32; 100_000], 100_000, &Device::Cpu).unwrap();
        let want = 100_000.0 * f64::from(1e-4f32).powi(2);
        assert!((squared_norm(&x).unwrap() - want).abs() < 1e-12 * want);
    }
}
