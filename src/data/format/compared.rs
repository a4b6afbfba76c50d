//! Two answers to a prompt, and which of them won.
//!
//! *Why*: who compared them had them side by side, so the row says which is better, not which was
//! chosen. A tie says nothing that could be learned.

use super::definition::{Format, Reading, TruncationMode, content, has, need, pair};
use super::pairs::read_whole;
use crate::data::chat::Content;
use crate::data::rows::invalid::{Invalid, RowError};
use crate::data::rows::read::Row;
use serde_json::Value as Json;

pub(super) const FORMAT: Format = Format {
    name: "compared",
    names: &[
        "prompt",
        "output_1",
        "output_2",
        "winner",
        "system",
        "tools",
        "chat_template_kwargs",
    ],
    columns: "prompt, output_1, output_2, strings or lists of messages, or output_1 and output_2 alone as \
              whole conversations; winner: 1, 2 or \"tie\"",
    truncation: TruncationMode::KeepStart,
    has_pairs: true,
    writes_turns: false,
    splits_turns: false,
    fits: |row| has(row, &["output_1", "output_2", "winner"]),
    read,
};

fn read(row: &Row) -> Reading {
    let (first, second) = (content(row, "output_1")?, content(row, "output_2")?);
    let (chosen, rejected) = match winner(row)? {
        Winner::First => (first, second),
        Winner::Second => (second, first),
        Winner::Neither => return Err(Invalid::NoWinner.into()),
    };
    match (row.get("prompt"), &chosen) {
        (None, Content::Messages(_)) => read_whole(row, chosen, rejected),
        _ => pair(row, content(row, "prompt")?, chosen, rejected),
    }
}

enum Winner {
    First,
    Second,
    Neither,
}

fn winner(row: &Row) -> Result<Winner, RowError> {
    let value = need(row, "winner")?;
    let text = match value {
        Json::String(text) => text.to_lowercase(),
        value => value.to_string(),
    };
    match text.as_str() {
        "1" | "1.0" | "a" | "model_a" | "output_1" => Ok(Winner::First),
        "2" | "2.0" | "b" | "model_b" | "output_2" => Ok(Winner::Second),
        text if ["tie", "both", "neither", "draw"]
            .iter()
            .any(|word| text.starts_with(word)) =>
        {
            Ok(Winner::Neither)
        }
        _ => Err(row.wrong("winner", "1, 2 or \"tie\"").into()),
    }
}
