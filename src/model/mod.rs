//! Causal language models: a Hugging Face folder in, log-probs and gradients out.

mod affine;
pub mod arch;
mod block;
mod choice;
pub mod decoder;
pub mod device;
pub mod family;
pub mod generate;
pub mod head;
pub mod init;
pub mod parameters;
pub mod sampling;
#[cfg(test)]
mod twin;
pub mod weights;

pub use decoder::Decoder;
