//! Preference pairs with a prompt of their own.
//!
//! *Why*: the texts are used as they are. Whether an answer begins with a space, or a prompt ends
//! in a template's last token, is for the file to say.

use super::{Format, Reading, pair};
use crate::data::config::TruncationMode;
use crate::data::read::Row;
use crate::error::Result;

pub(super) const FORMAT: Format = Format {
    name: "pairs",
    required: &["prompt", "chosen", "rejected"],
    columns: "prompt, chosen, rejected; preference (optional)",
    truncation: TruncationMode::KeepStart,
    read,
};

fn read(row: &Row) -> Result<Reading> {
    let prompt = row.text("prompt")?;
    pair(row, prompt, row.text("chosen")?, row.text("rejected")?)
}
