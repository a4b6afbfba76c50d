//! Comparison of explicit backward passes with candle's autograd.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use half::bf16;
use rand::{Rng, SeedableRng};

use super::attention::Scores;
use super::cpu::real::Element;
use super::device::{from_host, to_host};
use super::elementwise;
use super::precision::Precision;

/// Scores over sqrt(dim), as most models have them.
pub fn scores(dim: usize, window: Option<usize>) -> Scores {
    let scale = 1.0 / (dim as f64).sqrt();
    Scores {
        scale,
        window,
        softcap: None,
        precision: Precision::Full,
    }
}

/// A file of the project's own, `path` from its root; a test binary may run elsewhere than it was built.
pub fn project(path: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR");
    let root = root.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    root.join(path)
}

/// `tests/fixtures/{name}`.
pub fn fixture(name: &str) -> PathBuf {
    project("tests/fixtures").join(name)
}

/// A standard-normal-like f64 variable, the same for the same seed.
pub fn variable(seed: u64, shape: &[usize]) -> Var {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|_| rng.random_range(-1.5..1.5)).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The values of a tensor in host memory in a tensor of its own on `device`.
pub fn on(device: &Device, x: &Tensor) -> Tensor {
    fn copy<T: Element>(device: &Device, x: &Tensor) -> Tensor {
        let values: Vec<T> = x.flatten_all().unwrap().to_vec1().unwrap();
        from_host(&values, x.shape(), device).unwrap()
    }
    match x.dtype() {
        DType::F32 => copy::<f32>(device, x),
        DType::F64 => copy::<f64>(device, x),
        DType::BF16 => copy::<bf16>(device, x),
        DType::I16 => copy::<i16>(device, x),
        DType::I64 => copy::<i64>(device, x),
        DType::U32 => copy::<u32>(device, x),
        DType::U8 => copy::<u8>(device, x),
        other => panic!("a tensor of {other:?}"),
    }
}

/// The values of a tensor of any device in host memory.
pub fn here(x: &Tensor) -> Tensor {
    fn copy<T: Element>(x: &Tensor) -> Tensor {
        Tensor::from_vec(to_host::<T>(x).unwrap(), x.shape(), &Device::Cpu).unwrap()
    }
    if x.device().is_cpu() {
        return x.clone();
    }
    let x = match x.is_contiguous() {
        true => x.clone(),
        false => elementwise::copy(x).unwrap(),
    };
    match x.dtype() {
        DType::F32 => copy::<f32>(&x),
        DType::F64 => copy::<f64>(&x),
        DType::BF16 => copy::<bf16>(&x),
        DType::I16 => copy::<i16>(&x),
        DType::U32 => copy::<u32>(&x),
        DType::U8 => copy::<u8>(&x),
        other => panic!("a tensor of {other:?}"),
    }
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
