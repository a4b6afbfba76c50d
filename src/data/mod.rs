//! From files of preference rows to token sequences.
//!
//! Hides file kinds, dataset formats, the prompt rule, tokenisation and truncation behind
//! [`Dataset::open`]; what was dropped or cut on the way is counted in the [`Census`].
//!
//! *Why*: nothing is dropped silently. A row is either an [`Example`] or a line in the census.

pub mod pack;

use crate::loss::Role;

/// A response as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// What it is to its prompt.
    pub role: Role,
    /// Token ids, the end-of-sequence token included where the response is complete.
    pub ids: Vec<u32>,
}

/// One prompt with its responses, as the model sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The row's number in its file, from 0, invalid rows counted.
    pub row: usize,
    /// Token ids, the begin-of-sequence token included where the tokenizer puts one.
    pub prompt: Vec<u32>,
    /// Chosen first, then rejected, sampled, mismatched; not every role need be there.
    pub responses: Vec<Response>,
    /// p(chosen > rejected) where the row carries a soft label.
    pub preference: Option<f64>,
}
