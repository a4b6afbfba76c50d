//! From text to token ids: the tokenizer, the prompt rule, and the length limits.

mod bounds;
mod byte_level;
mod ends;
pub mod length;
mod overrides;
mod rule;
pub mod tokenizer;

pub use rule::{Continuation, TokenRule, Turn};
pub use tokenizer::Tokenizer;
