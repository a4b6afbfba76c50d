//! Single answers, each labelled good or bad.
//!
//! *Why*: a good answer is a chosen one without a rejected one beside it, so the losses that take
//! either kind need no third role.

use super::definition::{Format, Reading, RowExample, TruncationMode, has};
use crate::data::chat::Content;
use crate::data::rows::read::Row;
use crate::loss::Role;
use serde_json::Map;

pub(super) const FORMAT: Format = Format {
    name: "unpaired",
    columns: "prompt, completion, strings or lists of messages; label (true: desirable)",
    truncation: TruncationMode::KeepStart,
    has_pairs: false,
    writes_turns: false,
    splits_turns: false,
    fits: |row| has(row, &["prompt", "completion", "label"]),
    read,
};

fn read(row: &Row) -> Reading {
    let prompt = Content::read(row, "prompt")?;
    let completion = Content::read(row, "completion")?;
    let role = match row.need("label")?.as_bool() {
        Some(true) => Role::Chosen,
        Some(false) => Role::Rejected,
        None => return Err(row.wrong("label", "true or false").into()),
    };
    Ok(RowExample {
        prompt: Some(prompt),
        answers: vec![(role, completion)],
        preference: None,
        scores: None,
        variables: Map::new(),
    })
}
