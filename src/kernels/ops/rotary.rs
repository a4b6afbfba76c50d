//! Rotary position embedding, Su et al. 2021, in the half-split layout of Hugging Face.

use candle_core::{D, Tensor};

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::Dst;
use crate::kernels::{cpu, cuda};

/// The angle of every position and frequency.
#[derive(Debug)]
pub struct Angles {
    /// (tokens, 1, rotary_dim / 2).
    pub cos: Tensor,
    /// (tokens, 1, rotary_dim / 2).
    pub sin: Tensor,
}

/// Rotates, in place, the first rotary_dim of the last dimension of `x` (tokens, heads, head_dim),
/// which may be a view of a wider tensor; what is beyond keeps its values.
///
/// # Errors
/// If shapes or strides do not fit, or there is no kernel for the dtypes.
pub fn rotate<'a>(x: impl Into<Dst<'a>>, angles: &Angles) -> Result<()> {
    turn(x.into(), angles, 1.0)
}

/// The gradient with respect to the input, in place of that with respect to the output.
///
/// # Errors
/// As of [`rotate`].
pub fn rotate_back<'a>(dy: impl Into<Dst<'a>>, angles: &Angles) -> Result<()> {
    turn(dy.into(), angles, -1.0)
}

fn turn(x: Dst, angles: &Angles, direction: f64) -> Result<()> {
    let _profile = part(Part::Elementwise);
    let (tokens, _, dim) = x.dims3()?;
    let half = angles.cos.dim(D::Minus1)?;
    if x.stride()[2] != 1 || angles.cos.dim(0)? != tokens || 2 * half > dim {
        return Err(Error::failed(
            "rotary: heads with gaps, or angles of other tokens or wider heads",
        ));
    }
    let Angles { cos, sin } = angles;
    match Backend::of(&x) {
        Backend::Cpu => cpu::rotary::turn(x, cos, sin, direction),
        Backend::Cuda | Backend::Emulator => cuda::rotary::turn(x, cos, sin, direction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;
    use candle_core::DType;

    #[test]
    fn forward_equals_candle_nn_and_backward_equals_autograd() {
        let (tokens, heads, dim, rest) = (75, 3, 4, 2);
        let x = variable(1, &[tokens, heads, dim + rest]);
        let seed = variable(2, &[tokens, heads, dim + rest]);
        let theta = variable(3, &[tokens, 1, dim / 2]);
        let angles = Angles {
            cos: theta.cos().unwrap(),
            sin: theta.sin().unwrap(),
        };
        let flat = |t: &Tensor| t.reshape((tokens, dim / 2)).unwrap();
        let turned = x.narrow(2, 0, dim).unwrap().transpose(0, 1).unwrap();
        let turned = candle_nn::rotary_emb::rope_slow(
            &turned.unsqueeze(0).unwrap().contiguous().unwrap(),
            &flat(&angles.cos),
            &flat(&angles.sin),
        )
        .unwrap();
        let turned = turned.squeeze(0).unwrap().transpose(0, 1).unwrap();
        let want = Tensor::cat(&[turned, x.narrow(2, dim, rest).unwrap()], 2).unwrap();
        let gradient = &autograd(&want, &seed, &[&x])[0];
        let (got, dx) = (
            x.as_tensor().copy().unwrap(),
            seed.as_tensor().copy().unwrap(),
        );
        rotate(Dst::shared(&got), &angles).unwrap();
        rotate_back(Dst::shared(&dx), &angles).unwrap();
        assert_close(&got, &want, "forward");
        assert_close(&dx, gradient, "dx");

        let angles = Angles {
            cos: angles.cos.to_dtype(DType::F32).unwrap(),
            sin: angles.sin.to_dtype(DType::F32).unwrap(),
        };
        let got = x.to_dtype(DType::F32).unwrap();
        rotate(Dst::shared(&got), &angles).unwrap();
        assert_near(&got, &want, 1e-6, "f32");
    }

    #[test]
    fn a_view_turns_and_its_neighbours_stay() {
        let whole = variable(1, &[4, 3, 2, 6]).as_tensor().copy().unwrap();
        let theta = variable(2, &[4, 1, 2]);
        let angles = Angles {
            cos: theta.cos().unwrap(),
            sin: theta.sin().unwrap(),
        };
        let part = |i| whole.narrow(2, i, 1).unwrap().squeeze(2).unwrap();
        let (alone, other) = (part(1).copy().unwrap(), part(0).copy().unwrap());
        let alone = alone.contiguous().unwrap();
        rotate(Dst::shared(&alone), &angles).unwrap();
        rotate(Dst::shared(&part(1)), &angles).unwrap();
        assert_close(&part(1).contiguous().unwrap(), &alone, "the view");
        assert_close(&part(0), &other, "its neighbour");
    }
}
