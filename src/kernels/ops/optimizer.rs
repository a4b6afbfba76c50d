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
//! of which 4 are the read of an f32 gradient. RMSprop and Lion have one moment less: 20, 22 and 16. With
//! moments in 8 bits ([`adam_8bit`]) it is 16, 18 and 16, and 6, 8 and 6 are kept.

use candle_core::Tensor;

pub use crate::kernels::operands::blockwise::{BLOCK, Coded, Maps};
pub use crate::kernels::operands::optimizer::{Adam, Decayed, Lion, RmsProp, Weights};

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

/// The weights go by `rate` against the sign of `beta1 * mean + (1 - beta1) * x`, x = `gradient * scale`,
/// which is 0 of 0, and by `rate * weight_decay` of themselves where they are `decayed`; then `mean`
/// moves towards x with decay `beta2`. Tensors are (n), of the types of [`adam`].
///
/// # Errors
/// As of [`adam`].
pub fn lion(
    lion: &Lion,
    decayed: &Decayed,
    weights: Weights,
    mean: Dst,
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[&weights.tensors()[..], &[&mean, gradient]].concat())?;
    let gradient = (gradient, scale);
    match Backend::of(gradient.0) {
        Backend::Cpu => cpu::optimizer::lion(lion, decayed, weights, mean, gradient),
        Backend::Cuda | Backend::Emulator => {
            cuda::optimizer::lion(lion, decayed, weights, mean, gradient)
        }
    }
}

/// `w = keep * w - rate * direction`. Tensors are (n), of the types of [`adam`].
///
/// # Errors
/// As of [`adam`].
pub fn descend(keep: f64, rate: f64, weights: Weights, direction: &Tensor) -> Result<()> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[&weights.tensors()[..], &[direction]].concat())?;
    match Backend::of(direction) {
        Backend::Cpu => cpu::optimizer::descend(keep, rate, weights, direction),
        Backend::Cuda | Backend::Emulator => {
            cuda::optimizer::descend(keep, rate, weights, direction)
        }
    }
}

/// As [`adam`], with moments in 8 bits: blocks of [`BLOCK`] elements from the first one on are decoded,
/// updated in the type of the weights, by which these are updated, and coded again. Weights and gradient
/// are (n); all of them decay or none.
///
/// # Errors
/// As of [`adam`].
pub fn adam_8bit(
    adam: &Adam,
    decays: bool,
    maps: &Maps,
    weights: Weights,
    moments: [Coded; 2],
    (gradient, scale): (&Tensor, f64),
) -> Result<()> {
    let _profile = profile::part(Part::Optimizer);
    check_flat(&[&weights.tensors()[..], &[gradient]].concat())?;
    for moment in &moments {
        moment.check(gradient.elem_count())?;
    }
    let gradient = (gradient, scale);
    match Backend::of(gradient.0) {
        Backend::Cpu => cpu::optimizer::adam_8bit(adam, decays, weights, moments, gradient),
        Backend::Cuda | Backend::Emulator => {
            cuda::optimizer::adam_8bit(adam, decays, maps, weights, moments, gradient)
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
mod tests;
