//! Causal language models: a Hugging Face directory in, log-probs and gradients out.

pub mod adapter;
mod angles;
pub mod arch;
mod attention;
mod block;
mod branch;
mod choice;
#[cfg(test)]
mod cuda_tests;
pub mod decoder;
pub mod device;
pub mod family;
mod ffn;
pub mod generate;
pub mod head;
pub mod init;
mod lengths;
mod linear;
mod low_rank;
pub mod merge;
mod norm;
pub mod numerics;
pub mod parameters;
pub mod peft;
mod positions;
pub(crate) mod recognize;
pub mod sampling;
pub mod skipped;
pub(crate) mod tensor_file;
pub mod trainable;
pub mod weights;

pub use decoder::Decoder;
