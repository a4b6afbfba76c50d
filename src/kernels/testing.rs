//! Comparison of explicit backward passes with candle's autograd.

use candle_core::{DType, Device, Tensor, Var};
use rand::{Rng, SeedableRng};

use super::attention::Scores;

/// Scores over sqrt(dim), as most models have them.
pub fn scores(dim: usize, window: Option<usize>) -> Scores {
    let scale = 1.0 / (dim as f64).sqrt();
    Scores { scale, window }
}

/// A standard-normal-like f64 variable, the same for the same seed.
pub fn variable(seed: u64, shape: &[usize]) -> Var {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|_| rng.random_range(-1.5..1.5)).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Zeros to accumulate a gradient into.
pub fn zeros_like(tensor: &Tensor) -> Tensor {
    Tensor::zeros(tensor.shape(), DType::F64, &Device::Cpu).unwrap()
}

/// Asserts equality to `1e-10` of the largest magnitude.
pub fn assert_close(got: &Tensor, want: &Tensor, what: &str) {
    assert_near(got, want, 1e-10, what);
}

/// Asserts equality to `tolerance` of the largest magnitude.
pub fn assert_near(got: &Tensor, want: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(got.dims(), want.dims(), "{what}: shape");
    let values = |x: &Tensor| -> Vec<f64> {
        let x = x.to_dtype(DType::F64).unwrap();
        x.flatten_all().unwrap().to_vec1().unwrap()
    };
    let (got, want) = (values(got), values(want));
    let scale = want.iter().fold(1e-3, |max: f64, x| max.max(x.abs()));
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        let close = (got - want).abs() <= tolerance * scale;
        assert!(close, "{what}: {got} at {at}, not {want}, of {scale:e}");
    }
}

/// d (sum of `output` * `seed`) / d `variable` by candle's autograd.
pub fn autograd(output: &Tensor, seed: &Tensor, variables: &[&Var]) -> Vec<Tensor> {
    let gradients = (output * seed)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    variables
        .iter()
        .map(|v| gradients.get(v.as_tensor()).expect("a gradient").clone())
        .collect()
}
