//! The operations of a decoder, each with its own backward pass, as functions on candle tensors.
//!
//! Hides how an operation is computed on a device. Where things are:
//!
//! - `ops`: one file per operation, which is re-exported here: its contract, the checks of its operands,
//!   one `match` over the back ends (`Backend`), and a test that holds forward and backward equal
//!   to a plain formula in differentiable candle operations. A forward function returns what its
//!   backward function needs; gradients of weights are added in place.
//! - `cpu`, `cuda`: the back ends, with a file of the same name for an operation in each.
//! - `emulator`: the CUDA kernels compiled as C++, in tests, so that their text runs where no GPU is.
//! - `operands`, `tensor`: types that operations and back ends share; [`Dst`] is what an operation
//!   writes to.
//! - [`device`]: opening devices and copies to and from them; [`installed`]: the driver of this machine; [`instructions`]: those of the CPU;
//!   [`memory`]: the allocator of host memory; [`threads`]: the pool; [`profile`] and [`rates`]: where time goes, and what the
//!   machine could do.
//! - [`ranks`]: several processes that compute together.
//!
//! *Why*: candle's fused operations drop gradients silently, its autograd keeps every intermediate
//! until the end, and its plain operations run on one thread; here it is the oracle, not the engine.
//!
//! Dtypes: on the CPU f32, in which matmuls may round their operands to bf16, and f64 for tests that
//! need to see past rounding; matrices that are read alone may be bf16 beside f32. On a GPU weights and activations are f32 or bf16; the residual stream, its
//! gradient, statistics and gradients of weights are f32. Ids are u32. Tensors are contiguous where an
//! operation does not say that it takes views. Results do not depend on the number of threads; in f32
//! they do on the CPU's instruction set, in the last bits.

#![allow(unsafe_code)]

mod backend;
mod cpu;
mod cuda;
pub mod device;
#[cfg(test)]
pub(crate) mod emulator;
mod failure;
pub mod installed;
pub mod instructions;
pub mod memory;
#[cfg(not(test))]
mod no_emulator;
mod operands;
mod ops;
mod precision;
pub mod profile;
pub mod ranks;
pub mod rates;
mod tensor;
#[cfg(test)]
pub(crate) mod testing;
pub mod threads;

pub use ops::{
    activation, attention, dora, dropout, elementwise, embedding, exchange, kv_cache, linear, mix,
    norm, optimizer, packed, quantized, rotary, sampling, token, weighted,
};
pub use precision::Precision;
pub use tensor::Dst;

#[cfg(not(test))]
use no_emulator as emulator;
