//! The operations in host memory, on the threads of the rayon pool.
//!
//! A file per operation, which has checked the operands. Below them lie tensors as slices (`host`),
//! matmuls (`gemm`, `matmul`), f32 and f64 as one type (`real`), 16 numbers in registers (`lanes`) and vector
//! loops (`simd`, `softmax`).

pub(super) mod activation;
pub(super) mod attention;
pub(super) mod dora;
pub(super) mod dropout;
pub(super) mod elementwise;
pub(super) mod embedding;
mod full;
mod gemm;
pub(super) mod host;
pub(super) mod kv_cache;
mod lanes;
pub(super) mod level;
pub(super) mod linear;
mod matmul;
mod matrix;
pub(super) mod mix;
pub(super) mod norm;
pub(super) mod optimizer;
pub(super) mod packed;
pub(super) mod quantized;
pub(super) mod real;
pub(super) mod rotary;
pub(super) mod sampling;
mod simd;
mod softmax;
pub(super) mod token;
pub(super) mod weighted;
