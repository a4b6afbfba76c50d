//! Layer norm and root-mean-square norm over the last dimension.

use candle_core::Tensor;

pub use crate::kernels::operands::norm::Norm;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::{Dst, check_alike, rows};
use crate::kernels::{cpu, cuda};

/// What the backward pass needs: the input and two numbers per row of it.
#[derive(Debug)]
pub struct Saved {
    norm: Norm,
    /// (.., hidden).
    x: Tensor,
    /// (rows, 2): the mean, 0 in RMS norm, and `1 / sqrt(variance + epsilon)`.
    statistics: Tensor,
}

#[cfg(test)]
impl Saved {
    pub(crate) fn tensors(&self) -> [&Tensor; 2] {
        [&self.x, &self.statistics]
    }
}

/// The norm of contiguous `x` (.., hidden), with `weight` and `bias` (hidden).
///
/// # Errors
/// If shapes do not fit, or there is no kernel for the dtypes.
pub fn norm(
    x: &Tensor,
    norm: Norm,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Saved)> {
    let _profile = part(Part::Elementwise);
    let (_, width, _) = shape(x)?;
    check_widths(width, [weight].into_iter().chain(bias))?;
    let (y, statistics) = match Backend::of(x) {
        Backend::Cpu => cpu::norm::norm(x, norm, weight, bias),
        Backend::Cuda | Backend::Emulator => cuda::norm::norm(x, norm, weight, bias),
    }?;
    let x = x.clone();
    let saved = Saved {
        norm,
        x,
        statistics,
    };
    Ok((y, saved))
}

/// The output once more, from what was saved: cheaper than keeping it.
///
/// # Errors
/// As of [`norm()`].
pub fn output(saved: &Saved, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let _profile = part(Part::Elementwise);
    let (_, width, _) = shape(&saved.x)?;
    check_widths(width, [weight].into_iter().chain(bias))?;
    let input = (saved.norm, &saved.x, &saved.statistics);
    match Backend::of(&saved.x) {
        Backend::Cpu => cpu::norm::output(input, weight, bias),
        Backend::Cuda | Backend::Emulator => cuda::norm::output(input, weight, bias),
    }
}

/// Adds the gradients of weight and bias to `dweight` and `dbias` where these are wanted, and that of
/// the input to `dx` (.., hidden), which is contiguous as `dy` is.
///
/// # Errors
/// If shapes do not fit, or there is no kernel for the dtypes.
pub fn backward<'a>(
    dy: &Tensor,
    saved: &Saved,
    weight: &Tensor,
    (dweight, dbias): (Option<Dst>, Option<Dst>),
    dx: impl Into<Dst<'a>>,
) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let dx = dx.into();
    let Saved {
        norm,
        x,
        statistics,
    } = saved;
    let (_, width, _) = shape(x)?;
    check_alike("norm", &[x, dy, &dx])?;
    let wanted = [&dweight, &dbias].into_iter().flatten();
    check_widths(width, [weight].into_iter().chain(wanted.map(|x| &**x)))?;
    let input = (*norm, x, statistics);
    let gradients = (dweight, dbias);
    match Backend::of(dy) {
        Backend::Cpu => cpu::norm::backward(dy, input, weight, gradients, dx),
        Backend::Cuda | Backend::Emulator => cuda::norm::backward(dy, input, weight, gradients, dx),
    }
}

fn shape(x: &Tensor) -> Result<(usize, usize, usize)> {
    match x.is_contiguous() {
        true => rows(x),
        false => Err(Error::failed("norm: its operands must be contiguous")),
    }
}

fn check_widths<'a>(width: usize, weights: impl Iterator<Item = &'a Tensor>) -> Result<()> {
    match weights.map(Tensor::elem_count).find(|&len| len != width) {
        Some(len) => Err(Error::failed(format!(
            "norm: weights of {len} for rows of {width}"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::DType;

    /// candle-nn's slow norms are independent of ours and differentiable.
    #[test]
    fn forward_and_backward_equal_the_slow_norms_of_candle_nn() {
        let epsilon = 1e-5;
        let layer = Norm::LayerNorm { epsilon };
        let [rms, offset] = [false, true].map(|plus_one| Norm::Rms { epsilon, plus_one });
        for (shape, kind) in [
            (&[5, 7][..], layer),
            (&[5, 7], rms),
            (&[5, 7], offset),
            (&[4, 3, 7], layer),
            (&[4, 3, 7], rms),
            (&[1, 3], rms),
            (&[1, 3], offset),
            (&[600, 129], layer),
            (&[600, 129], rms),
            (&[600, 129], offset),
        ] {
            let centered = kind.centered();
            let width = shape[shape.len() - 1];
            let (w, b) = (variable(2, &[width]), variable(3, &[width]));
            let (x, seed) = (variable(1, shape), variable(4, shape));
            let want = if centered {
                candle_nn::ops::layer_norm_slow(&x, &w, &b, 1e-5).unwrap()
            } else {
                let factor = (w.as_tensor() + f64::from(u8::from(kind.plus_one()))).unwrap();
                candle_nn::ops::rms_norm_slow(&x, &factor, 1e-5).unwrap()
            };
            let bias = centered.then_some(b.as_tensor());
            let (got, saved) = norm(&x, kind, &w, bias).unwrap();
            assert_close(&got, &want, "forward");
            assert_close(&output(&saved, &w, bias).unwrap(), &want, "output again");
            let variables = [&x, &w, &b];
            let grads = autograd(&want, &seed, &variables[..2 + usize::from(centered)]);
            let (dw, db) = (zeros_like(&w), zeros_like(&b));
            let dx = x.as_tensor().copy().unwrap();
            let into = (Some(Dst::shared(&dw)), centered.then(|| Dst::shared(&db)));
            backward(&seed, &saved, &w, into, Dst::shared(&dx)).unwrap();
            let alone = x.as_tensor().copy().unwrap();
            backward(&seed, &saved, &w, (None, None), Dst::shared(&alone)).unwrap();
            assert_close(&alone, &dx, "dx alone");
            assert_close(&(dx - x.as_tensor()).unwrap(), &grads[0], "dx");
            assert_close(&dw, &grads[1], "dw");
            if centered {
                assert_close(&db, &grads[2], "db");
            }

            let [x, w, b, seed] = [&x, &w, &b, &seed].map(|x| x.to_dtype(DType::F32).unwrap());
            let bias = centered.then_some(&b);
            let (got, saved) = norm(&x, kind, &w, bias).unwrap();
            assert_near(&got, &want, 3e-6, "f32 forward");
            let [dx, dw, db] = [&x, &w, &b].map(|x| x.zeros_like().unwrap());
            let into = (Some(Dst::shared(&dw)), centered.then(|| Dst::shared(&db)));
            backward(&seed, &saved, &w, into, Dst::shared(&dx)).unwrap();
            assert_near(&dx, &grads[0], 3e-6, "f32 dx");
            assert_near(&dw, &grads[1], 3e-6, "f32 dw");
        }
    }
}
