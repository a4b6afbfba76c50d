//! Anthropic's HH: two transcripts of the same conversation with different last answers.
//!
//! *Why*: the prompt is `chosen` up to and including its last `\n\nAssistant:`, as in the official
//! DPO repository. The longest common prefix of both transcripts, which others take for it, moves
//! answer text into the prompt wherever two answers begin alike.

use super::{Format, Reading, pair};
use crate::data::census::Invalid;
use crate::data::config::TruncationMode;
use crate::data::read::Row;
use crate::error::Result;

pub(super) const FORMAT: Format = Format {
    name: "hh",
    required: &["chosen", "rejected"],
    columns: "chosen, rejected: whole transcripts; preference (optional)",
    truncation: TruncationMode::KeepEnd,
    read,
};

const TURN: &str = "\n\nAssistant:";

fn read(row: &Row) -> Result<Reading> {
    let (chosen, rejected) = (row.text("chosen")?, row.text("rejected")?);
    let Some(at) = chosen.rfind(TURN) else {
        return Ok(Err(Invalid::NoAssistantTurn));
    };
    let (prompt, chosen) = chosen.split_at(at + TURN.len());
    match rejected.strip_prefix(prompt) {
        Some(rejected) => pair(row, prompt, chosen, rejected),
        None => Ok(Err(Invalid::PromptDiffers)),
    }
}
