//! Single answers, each labelled good or bad.
//!
//! *Why*: a good answer is a chosen one without a rejected one beside it, so the losses that take
//! either kind need no third role.

use super::definition::{Format, Reading, RowExample, TruncationMode, content, has, need, parted};
use crate::data::rows::read::Row;
use crate::loss::Role;

pub(super) const FORMAT: Format = Format {
    name: "unpaired",
    names: &[
        "prompt",
        "completion",
        "label",
        "system",
        "tools",
        "chat_template_kwargs",
    ],
    columns: "prompt, completion, strings or lists of messages; label (true or 1: desirable)",
    truncation: TruncationMode::KeepStart,
    has_pairs: false,
    writes_turns: false,
    splits_turns: false,
    fits: |row| has(row, &["prompt", "completion", "label"]),
    read,
};

fn read(row: &Row) -> Reading {
    let (prompt, completion) = parted(content(row, "prompt")?, content(row, "completion")?);
    let label = need(row, "label")?;
    // A table of numbers or texts has no other way to say it.
    let text = match label.as_str() {
        Some(text) => text.trim().to_lowercase(),
        None => label.to_string(),
    };
    let role = match text.as_str() {
        "true" | "1" | "1.0" | "desirable" | "good" | "chosen" => Role::Chosen,
        "false" | "0" | "0.0" | "-1" | "-1.0" | "undesirable" | "bad" | "rejected" => {
            Role::Rejected
        }
        _ => return Err(row.wrong("label", "true or false").into()),
    };
    Ok(RowExample {
        answers: vec![(role, completion)],
        ..RowExample::of_prompt(prompt)
    })
}
