//! From files of preference rows to token sequences.
//!
//! Hides file kinds, dataset formats, chat templates, the prompt rule, tokenisation, truncation and
//! where the tokens are kept behind [`Dataset::open`]; what was dropped or cut on the way is counted
//! in the [`Census`].
//!
//! *Why*: nothing is dropped silently. A row is either an [`Example`] or a line in the census.

mod answers;
mod batches;
mod build;
mod census;
pub mod chat;
mod config;
mod dataset;
mod example;
mod files;
pub mod format;
mod inspect;
mod length;
mod mismatch;
mod open;
mod order;
pub mod pack;
mod prompts;
pub mod read;
mod record;
mod render;
mod samples;
mod scores;
mod store;
mod tokenizer;
mod tokens;

pub use answers::{ChosenAnswers, chosen_answers};
pub use batches::{Batches, Orders};
pub use census::{Census, Invalid, Lines, Spread};
pub use config::{AddBos, AssistantTurns, DataConfig, OnInvalid, Scores, Tokenize};
pub use dataset::Dataset;
pub use example::{Example, Response};
pub use files::Files;
pub use format::TruncationMode;
pub use inspect::{Inspection, Part};
pub use mismatch::mismatched_answers;
pub use order::{ORDER_VERSION, epoch_order};
pub use prompts::{Prompt, prompts};
pub use samples::{Sample, Samples, one_each};
pub use tokenizer::Tokenizer;
pub use tokens::{Continuation, TokenRule};
