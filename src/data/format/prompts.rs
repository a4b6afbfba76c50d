//! Prompts without any answer.
//!
//! *Why*: a loss may learn from what was drawn from the reference alone. The answers then come from
//! a sample file, and the prompts need no preference.

use super::definition::{Format, Reading, RowExample, TruncationMode, content, has};
use crate::data::rows::read::Row;

pub(super) const FORMAT: Format = Format {
    name: "prompts",
    names: &[
        "prompt",
        "instruction",
        "system",
        "tools",
        "chat_template_kwargs",
    ],
    columns: "prompt or instruction, a string or a list of messages; or a .txt file with a prompt on each line",
    truncation: TruncationMode::KeepStart,
    has_pairs: false,
    writes_turns: false,
    splits_turns: false,
    fits: |row| has(row, &["prompt"]).max(has(row, &["instruction"])),
    read,
};

fn read(row: &Row) -> Reading {
    Ok(RowExample::of_prompt(content(row, column(row))?))
}

/// AlpacaEval's set calls it an instruction.
fn column(row: &Row) -> &'static str {
    match row.get("prompt").or(row.get("instruction")) {
        Some(_) if row.get("prompt").is_none() => "instruction",
        _ => "prompt",
    }
}
