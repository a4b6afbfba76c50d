//! Single answers, each labelled good or bad.
//!
//! *Why*: a good answer is a chosen one without a rejected one beside it, so the losses that take
//! either kind need no third role.

use super::{Format, Reading, TextExample};
use crate::data::config::TruncationMode;
use crate::data::read::Row;
use crate::error::Result;
use crate::loss::Role;

pub(super) const FORMAT: Format = Format {
    name: "unpaired",
    required: &["prompt", "completion", "label"],
    columns: "prompt, completion, label (true: desirable)",
    truncation: TruncationMode::KeepStart,
    read,
};

fn read(row: &Row) -> Result<Reading> {
    let (prompt, completion) = (row.text("prompt")?, row.text("completion")?);
    let role = match row.need("label")?.as_bool() {
        Some(true) => Role::Chosen,
        Some(false) => Role::Rejected,
        None => return Err(row.wrong("label", "true or false")),
    };
    Ok(Ok(TextExample {
        prompt: prompt.to_owned(),
        answers: vec![(role, completion.to_owned())],
        preference: None,
    }))
}
