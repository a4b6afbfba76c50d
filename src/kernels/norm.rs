//! Layer norm and root-mean-square norm over the last dimension.

use candle_core::{D, Tensor};

use super::elementwise::add_assign;
use crate::error::Result;

/// What the backward pass needs: the normalised input and the scale that made it.
#[derive(Debug)]
pub struct Saved {
    /// (.., hidden): `(x - mean) * inverse`, with the mean taken as 0 by RMS norm.
    normalized: Tensor,
    /// (.., 1): `1 / sqrt(variance + epsilon)`.
    inverse: Tensor,
    centered: bool,
}

/// `normalized * weight + bias` of `x` (.., hidden). A bias means layer norm (Ba et al. 2016),
/// none means RMS norm (Zhang and Sennrich 2019), which does not subtract the mean.
pub fn norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epsilon: f64,
) -> Result<(Tensor, Saved)> {
    let centered = bias.is_some();
    let x = if centered {
        x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?
    } else {
        x.clone()
    };
    let inverse = (x.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?
        .sqrt()?
        .recip()?;
    let saved = Saved {
        normalized: x.broadcast_mul(&inverse)?,
        inverse,
        centered,
    };
    Ok((output(&saved, weight, bias)?, saved))
}

/// The output once more, from what was saved: cheaper than keeping it.
pub fn output(saved: &Saved, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = saved.normalized.broadcast_mul(weight)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

/// Adds the gradients of weight and bias to `dweight` and `dbias`; returns that of `x` (.., hidden).
pub fn backward(
    dy: &Tensor,
    saved: &Saved,
    weight: &Tensor,
    dweight: &Tensor,
    dbias: Option<&Tensor>,
) -> Result<Tensor> {
    let rows_summed = |x: &Tensor| -> Result<Tensor> { Ok(x.flatten_to(D::Minus2)?.sum(0)?) };
    add_assign(dweight, &rows_summed(&(dy * &saved.normalized)?)?)?;
    if let Some(dbias) = dbias {
        add_assign(dbias, &rows_summed(dy)?)?;
    }
    let g = dy.broadcast_mul(weight)?;
    let along = (&g * &saved.normalized)?.mean_keepdim(D::Minus1)?;
    let mut dx = (&g - saved.normalized.broadcast_mul(&along)?)?;
    if saved.centered {
        dx = dx.broadcast_sub(&g.mean_keepdim(D::Minus1)?)?;
    }
    Ok(dx.broadcast_mul(&saved.inverse)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;

    /// candle-nn's slow norms are independent of ours and differentiable.
    #[test]
    fn forward_and_backward_equal_the_slow_norms_of_candle_nn() {
        let (w, b) = (variable(2, &[7]), variable(3, &[7]));
        for (shape, centered) in [
            (&[5, 7][..], true),
            (&[5, 7], false),
            (&[4, 3, 7], true),
            (&[4, 3, 7], false),
        ] {
            let (x, seed) = (variable(1, shape), variable(4, shape));
            let want = if centered {
                candle_nn::ops::layer_norm_slow(&x, &w, &b, 1e-5).unwrap()
            } else {
                candle_nn::ops::rms_norm_slow(&x, &w, 1e-5).unwrap()
            };
            let bias = centered.then_some(b.as_tensor());
            let (got, saved) = norm(&x, &w, bias, 1e-5).unwrap();
            assert_close(&got, &want, "forward");
            assert_close(&output(&saved, &w, bias).unwrap(), &want, "output again");
            let variables = [&x, &w, &b];
            let grads = autograd(&want, &seed, &variables[..2 + usize::from(centered)]);
            let (dw, db) = (zeros_like(&w), zeros_like(&b));
            let dx = backward(&seed, &saved, &w, &dw, centered.then_some(&db)).unwrap();
            assert_close(&dx, &grads[0], "dx");
            assert_close(&dw, &grads[1], "dw");
            if centered {
                assert_close(&db, &grads[2], "db");
            }
        }
    }
}
