//! Rotary position embedding (Su et al. 2021) in the half-split layout of GPT-NeoX and Llama.

use candle_core::{D, Tensor};

use crate::error::Result;

/// The angles of a batch of tokens.
#[derive(Debug)]
pub struct Angles {
    /// (tokens, 1, dim / 2): cosines; `dim` is the rotated part of a head, possibly all of it.
    pub cos: Tensor,
    /// (tokens, 1, dim / 2): sines.
    pub sin: Tensor,
}

/// Rotates the first `dim` entries of each head of `x` (tokens, heads, head_dim).
pub fn rotate(x: &Tensor, angles: &Angles) -> Result<Tensor> {
    turn(x, &angles.cos, &angles.sin)
}

/// The backward pass: the rotation is orthogonal, so its transpose turns the other way.
pub fn rotate_back(dy: &Tensor, angles: &Angles) -> Result<Tensor> {
    turn(dy, &angles.cos, &angles.sin.neg()?)
}

fn turn(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = cos.dim(D::Minus1)?;
    let rest = x.dim(D::Minus1)? - 2 * half;
    let (a, b) = (
        x.narrow(D::Minus1, 0, half)?,
        x.narrow(D::Minus1, half, half)?,
    );
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    let mut parts = vec![first, second];
    if rest > 0 {
        parts.push(x.narrow(D::Minus1, 2 * half, rest)?);
    }
    Ok(Tensor::cat(&parts, D::Minus1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;

    #[test]
    fn forward_equals_candle_nn_and_backward_equals_autograd() {
        let (tokens, heads, dim, rest) = (5, 3, 4, 2);
        let x = variable(1, &[tokens, heads, dim + rest]);
        let seed = variable(2, &[tokens, heads, dim + rest]);
        let theta = variable(3, &[tokens, 1, dim / 2]);
        let angles = Angles {
            cos: theta.cos().unwrap(),
            sin: theta.sin().unwrap(),
        };
        let flat = |t: &Tensor| t.reshape((tokens, dim / 2)).unwrap();
        let turned = x
            .narrow(2, 0, dim)
            .unwrap()
            .transpose(0, 1)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let turned = candle_nn::rotary_emb::rope_slow(
            &turned.contiguous().unwrap(),
            &flat(&angles.cos),
            &flat(&angles.sin),
        )
        .unwrap();
        let turned = turned.squeeze(0).unwrap().transpose(0, 1).unwrap();
        let want = Tensor::cat(&[turned, x.narrow(2, dim, rest).unwrap()], 2).unwrap();
        assert_close(&rotate(&x, &angles).unwrap(), &want, "forward");
        let gradient = autograd(&want, &seed, &[&x]);
        assert_close(&rotate_back(&seed, &angles).unwrap(), &gradient[0], "dx");
    }
}
