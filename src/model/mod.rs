//! Causal language models: a Hugging Face folder in, log-probs and gradients out.

pub mod arch;
mod block;
pub mod decoder;
pub mod device;
pub mod family;
pub mod head;
pub mod init;
pub mod hub;
pub mod parameters;
pub mod weights;

pub use decoder::Decoder;
