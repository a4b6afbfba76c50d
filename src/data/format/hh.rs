//! Anthropic's HH: two transcripts of the same conversation with different last answers.
//!
//! *Why*: the prompt is `chosen` up to and including its last `\n\nAssistant:`, as in the official
//! DPO repository. The longest common prefix of both transcripts, which others take for it, moves
//! answer text into the prompt wherever two answers begin alike.

use super::definition::{Format, Reading, TruncationMode, has, need, pair};
use crate::data::chat::Content;
use crate::data::rows::invalid::{Invalid, RowError};
use crate::data::rows::read::Row;

pub(super) const FORMAT: Format = Format {
    name: "hh",
    names: &[
        "chosen",
        "rejected",
        "preference",
        "score_chosen",
        "score_rejected",
    ],
    columns: "chosen, rejected: whole transcripts; preference, score_chosen, score_rejected (optional)",
    truncation: TruncationMode::KeepEnd,
    has_pairs: true,
    writes_turns: true,
    splits_turns: false,
    fits,
    read,
};

const TURN: &str = "\n\nAssistant:";

fn fits(row: &Row) -> usize {
    let begins = |text: &str| text.contains(TURN) || text.contains("\n\nHuman:");
    let chosen = row.get("chosen").and_then(|chosen| chosen.as_str());
    match chosen.is_some_and(begins) {
        true => has(row, &["chosen", "rejected"]),
        false => 0,
    }
}

fn read(row: &Row) -> Reading {
    let text = |column| {
        let messages = "lists of messages are of format `pairs`";
        need(row, column)?;
        let text = row.text(column).map_err(|error| match row.get(column) {
            Some(value) if value.is_array() => error.hint(messages),
            _ => error,
        });
        text.map_err(RowError::from)
    };
    let (chosen, rejected) = (text("chosen")?, text("rejected")?);
    let Some(at) = chosen.rfind(TURN) else {
        return Err(Invalid::NoAssistantTurn.into());
    };
    let (prompt, chosen) = chosen.split_at(at + TURN.len());
    let content = |text: &str| Content::Text(text.to_owned());
    match rejected.strip_prefix(prompt) {
        Some(rejected) => pair(row, content(prompt), content(chosen), content(rejected)),
        None => Err(Invalid::PromptDiffers.into()),
    }
}
