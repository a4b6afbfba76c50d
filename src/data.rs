//! From files of preference rows to packed batches of tokens.
//!
//! The way of one row:
//!
//! ```text
//! file              rows.jsonl[:1000], .parquet, .arrow, .csv, a directory            [`Files`]
//!   | read          one object of columns, and where it stands (file:line)
//! Row                                                                           [`read::Row`]
//!   | format        a prompt and its answers, each with a role; or why the row is left out
//! RowExample                                                             [`format::RowExample`]
//!   | render        through the chat template where it is a conversation
//! TextExample       one text for the prompt, one for each answer
//!   | join          samples drawn for the prompt, answers to other prompts (KTO)
//! Draft
//!   | tokens        token ids by the prompt rule, cut to the length limits
//! Example           prompt and responses as ids                                     [`Example`]
//!   | store         lengths in memory, ids beside them or in a temporary file
//! Dataset           all examples, in order, and the report of its rows              [`Dataset`]
//!   | order         the rows of a step, by seed and step number                     [`Batches`]
//!   | pack          prompts once, no padding, roles that the loss reads
//! Packed            the batch: ids, positions, segments, labels              [`pack::Packed`]
//! ```
//!
//! Prompts alone, for sampling, take the same way up to their ids: [`prompts`].
//!
//! Hides file kinds, dataset formats, chat templates, the prompt rule, tokenization, truncation and
//! where the tokens are kept behind [`Dataset::open`]; what was dropped or cut on the way is counted
//! in the [`RowReport`].
//!
//! *Why*: nothing is dropped silently. A row is either an [`Example`] or a line in the report.

mod batches;
pub mod chat;
mod config;
mod dataset;
mod example;
pub mod format;
pub mod lint;
mod rows;
mod tokens;

pub use batches::{Batches, ORDER_VERSION, Orders, deal, epoch_order, pack};
pub use config::{
    AddBos, AssistantTurns, ChatConfig, LengthConfig, MAX_INVALID_FRACTION, OnInvalid,
    PromptConfig, RowConfig, Scores, TokenName, Tokenize, TokenizeConfig,
};
pub use dataset::{
    ChosenAnswers, Dataset, Inspection, Look, Part, Prompt, PromptTokens, Sample, Samples,
    chosen_answers, look, mismatched_answers, one_each, prompts, read_prompts,
};
pub use example::{Example, Response};
pub use format::TruncationMode;
pub use rows::{
    Files, Invalid, Lines, PartCount, RowError, RowReport, Spread, Weight, Weighted, read,
};
pub use tokens::{Continuation, TokenRule, Tokenizer};
