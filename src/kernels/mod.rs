//! The operations of a decoder, each with its own backward pass, as functions on candle tensors.
//!
//! Hides how an operation is computed on a device. An operation is one file: a forward function that
//! returns what its backward function needs, and a test that holds both equal to a plain formula in
//! differentiable candle operations, in f64 and in f32. Weight gradients are added in place, and
//! where it serves, an operation writes into the memory it is given. Below the operations lie tensors
//! as slices (`cpu`), products (`gemm`, `bf16`), f32 and f64 as one type (`real`) and vector loops
//! (`simd`, `softmax`).
//!
//! *Why*: candle's fused operations drop gradients silently, its autograd keeps every intermediate
//! until the end, and its plain operations run on one thread; here it is the oracle, not the engine.
//!
//! Dtypes are f32, and f64 for tests that need to see past rounding; ids are u32. Tensors are
//! contiguous where an operation does not say that it takes views. Results do not depend on the
//! number of threads; in f32 they do on the processor, in the last bits.

#![allow(unsafe_code)]

/// Leaves an operation with what it gives on a GPU, if the tensor is there.
macro_rules! on_gpu {
    ($tensor:expr => $call:expr) => {
        #[cfg(any(test, feature = "cuda"))]
        if $crate::kernels::gpu::holds($tensor) {
            return $call;
        }
    };
}

pub mod activation;
pub mod attention;
mod bf16;
pub mod by_row;
mod cpu;
pub mod device;
pub mod elementwise;
pub mod embedding;
pub mod gemm;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod gpu;
pub mod key_values;
pub mod linear;
pub mod memory;
pub mod norm;
pub mod optimizer;
pub mod profile;
mod real;
pub mod rotary;
pub mod sampling;
mod simd;
mod softmax;
pub mod token;

use crate::error::Error;

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        use candle_core::Error as Candle;
        match error {
            // A backtrace is for those who work on candle.
            Candle::WithBacktrace { inner, .. } => Self::from(*inner),
            error => of_device(error.to_string()),
        }
    }
}

/// Maps device errors to [`Error`]: out of memory has a kind of its own.
fn of_device(said: String) -> Error {
    match said.contains("OUT_OF_MEMORY") || said.contains("out of memory") {
        true => Error::out_of_memory("GPU"),
        false => Error::failed(said),
    }
}

#[cfg(test)]
pub(crate) mod testing {
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
}
