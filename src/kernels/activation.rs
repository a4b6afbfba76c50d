//! Activations of the feed-forward block: exact GELU and SwiGLU.

use candle_core::Tensor;

use crate::error::Result;

/// `x Phi(x)` with the exact normal distribution function, not its tanh approximation.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    Ok(x.gelu_erf()?)
}

/// `dy (Phi(x) + x phi(x))`.
pub fn gelu_backward(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    let cdf = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5;
    let density = ((x.sqr()? * -0.5)?.exp()? * (2.0 * std::f64::consts::PI).sqrt().recip())?;
    Ok((dy * (cdf? + (x * density)?)?)?)
}

/// `silu(gate) * up` with `silu(z) = z sigma(z)`.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    Ok(((gate * sigmoid(gate)?)? * up)?)
}

/// The gradients with respect to `gate` and `up`.
pub fn swiglu_backward(dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let sigma = sigmoid(gate)?;
    let silu = (gate * &sigma)?;
    let slope = (&sigma + (&silu * sigma.affine(-1.0, 1.0)?)?)?;
    Ok((((dy * up)? * slope)?, (dy * silu)?))
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;

    /// candle's derivative of `gelu_erf` is off by 2e-7 (a shortened constant), so the oracle is
    /// composed of `erf`.
    #[test]
    fn gelu_equals_its_formula_and_backward_equals_autograd() {
        let (x, seed) = (variable(1, &[3, 5]), variable(2, &[3, 5]));
        let cdf = ((x.as_tensor() / 2f64.sqrt()).unwrap().erf().unwrap() + 1.0).unwrap();
        let y = ((cdf * 0.5).unwrap() * x.as_tensor()).unwrap();
        assert_close(&gelu(&x).unwrap(), &y, "forward");
        let want = autograd(&y, &seed, &[&x]);
        assert_close(&gelu_backward(&seed, &x).unwrap(), &want[0], "dx");
    }

    #[test]
    fn swiglu_backward_equals_autograd() {
        let (gate, up, seed) = (
            variable(1, &[3, 5]),
            variable(2, &[3, 5]),
            variable(3, &[3, 5]),
        );
        let y = (candle_nn::ops::silu(&gate).unwrap() * up.as_tensor()).unwrap();
        assert_close(&swiglu(&gate, &up).unwrap(), &y, "forward");
        let want = autograd(&y, &seed, &[&gate, &up]);
        let (dgate, dup) = swiglu_backward(&seed, &gate, &up).unwrap();
        assert_close(&dgate, &want[0], "dgate");
        assert_close(&dup, &want[1], "dup");
    }

    #[test]
    fn swiglu_is_finite_far_out() {
        let x = Tensor::new(&[-1e4f32, -100., 0., 100., 1e4], &candle_core::Device::Cpu).unwrap();
        let y = swiglu(&x, &x.ones_like().unwrap())
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert!(y.iter().all(|y| y.is_finite()), "{y:?}");
        let (d, _) = swiglu_backward(&x.ones_like().unwrap(), &x, &x.ones_like().unwrap()).unwrap();
        assert_eq!(d.to_vec1::<f32>().unwrap()[..1], [0.0]);
    }
}
