//! Causal language models: a Hugging Face folder in, log-probs and gradients out.

mod affine;
pub mod arch;
mod block;
mod choice;
#[cfg(test)]
mod cuda_tests;
pub mod decoder;
pub mod device;
pub mod family;
pub mod generate;
pub mod head;
pub mod hub;
pub mod init;
pub mod parameters;
pub mod sampling;
pub mod weights;

pub use decoder::Decoder;
