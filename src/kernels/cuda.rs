//! The operations on an NVIDIA GPU.
//!
//! Hides streams, launches and element types. An operation is a pair: a `.cu` file, whose text is
//! part of the program and compiled where it runs, and a file of the same name that launches it.
//! The operation's own file, in `ops`, checks the operands and chooses the back end. Below the
//! operations lie sums over rows (`columns`), launches as values (`module`), where they go (`launch`),
//! and CUDA itself (`driver`).
//!
//! *Why*: text that is compiled at run time needs no compiler at build time, fits the GPU that is
//! there, and can be tested where none is: the emulator compiles the same text as C++ and runs it on the
//! CPU, launched by the same functions. In a build without CUDA `no_driver` stands in for `driver`.
//!
//! Weights and activations are bf16 or f32. The residual stream, its gradient, statistics and weight
//! gradients are f32 in both. Sums over elements are f32 or wider, in an order that does not depend on
//! scheduling.

// What only a driver or the emulator reads has no reader in a build without both.
#![cfg_attr(not(any(test, feature = "cuda")), allow(dead_code))]

pub(super) mod activation;
#[cfg(test)]
mod ahead_tests;
pub(super) mod attention;
mod columns;
pub(super) mod dora;
#[cfg(feature = "cuda")]
pub(super) mod driver;
pub(super) mod dropout;
pub(super) mod elementwise;
pub(super) mod embedding;
mod images;
pub(super) mod kv_cache;
mod launch;
pub(super) mod linear;
pub(super) mod mix;
pub(super) mod module;
#[cfg(not(feature = "cuda"))]
pub(super) mod no_driver;
pub(super) mod norm;
pub(super) mod optimizer;
#[cfg(test)]
pub(super) mod ptx_tests;
pub(super) mod quantized;
pub(super) mod rotary;
pub(super) mod sampling;
pub(super) mod token;
pub(super) mod weighted;

#[cfg(not(feature = "cuda"))]
pub(super) use no_driver as driver;
