//! From text to token ids: the tokenizer, the prompt rule, and the length limits.

mod bounds;
pub mod length;
mod rule;
pub mod tokenizer;

pub use rule::{Continuation, TokenRule};
pub use tokenizer::Tokenizer;
