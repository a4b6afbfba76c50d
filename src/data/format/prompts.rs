//! Prompts without any answer.
//!
//! *Why*: a loss may learn from what was drawn from the reference alone. The answers then come from
//! a sample file, and the prompts need no preference.

use super::{Format, Reading, TextExample};
use crate::data::config::TruncationMode;
use crate::data::read::Row;
use crate::error::Result;

pub(super) const FORMAT: Format = Format {
    name: "prompts",
    required: &["prompt"],
    columns: "prompt",
    truncation: TruncationMode::KeepStart,
    read,
};

fn read(row: &Row) -> Result<Reading> {
    Ok(Ok(TextExample {
        prompt: row.text("prompt")?.to_owned(),
        answers: Vec::new(),
        preference: None,
    }))
}
