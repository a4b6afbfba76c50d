//! Detects the format of rows from their columns.
//!
//! *Why*: the names that people give to prompt and answer are few. Training takes none of them for
//! granted, but whoever writes a config is helped by a proposal.

use super::columns::{Columns, Path};
use super::{Format, most};
use crate::data::rows::Files;
use crate::data::rows::read::Row;
use crate::error::Result;

/// What a column is often called.
const ALIASES: &[(&str, &[&str])] = &[
    (
        "chosen",
        &[
            "preferred",
            "chosen_response",
            "response_chosen",
            "accepted",
            "better",
            "positive",
            "winning",
        ],
    ),
    (
        "rejected",
        &[
            "dispreferred",
            "non_preferred",
            "rejected_response",
            "response_rejected",
            "worse",
            "negative",
            "losing",
        ],
    ),
    (
        "prompt",
        &[
            "question",
            "instruction",
            "query",
            "input",
            "problem",
            "user",
            "request",
            "context",
            "history",
            "post",
            "document",
            "article",
        ],
    ),
    (
        "completion",
        &[
            "response",
            "answer",
            "output",
            "solution",
            "target",
            "reply",
            "assistant",
            "summary",
        ],
    ),
    ("messages", &["dialogue", "dialog", "turns", "chat"]),
    ("text", &["content", "body"]),
];

/// The format of the first rows of files, and where its columns stand.
///
/// # Errors
/// If the files cannot be read, or nothing fits, with the columns there are.
pub fn guess(files: &Files) -> Result<(&'static Format, Columns)> {
    most(files, &Columns::default(), |row| {
        let (plain, columns) = (Columns::default(), renamed(row));
        let known = Format::of_row(row, &plain).map(|format| (format, plain));
        let guessed = Format::of_row(row, &columns).map(|format| (format, columns));
        // A prompt alone is what is left of a pair under other names.
        let is_rest = |(format, _): &(&Format, Columns)| **format == *Format::PROMPTS;
        let whole = [&known, &guessed]
            .into_iter()
            .flatten()
            .find(|one| !is_rest(one));
        match whole.cloned() {
            Some(one) => Some((one, false)),
            None => known.or(guessed).map(|one| (one, true)),
        }
    })
}

// The row's columns under the names that formats read.
fn renamed(row: &Row) -> Columns {
    let known = |name: &str| row.get(name).is_some();
    let is_pair = ALIASES[..2]
        .iter()
        .all(|(name, others)| known(name) || others.iter().any(|other| known(other)));
    let wanted = ALIASES.iter().filter(|(name, _)| {
        let of_pairs = matches!(*name, "chosen" | "rejected");
        match is_pair {
            true => of_pairs || *name == "prompt",
            false => !of_pairs,
        }
    });
    let mut found: Vec<(String, Path)> = Vec::new();
    for (name, others) in wanted {
        let other = others.iter().find(|other| known(other));
        if let (false, Some(Ok(path))) = (known(name), other.map(|other| other.parse())) {
            found.push(((*name).to_owned(), path));
        }
    }
    // An answer is enough; a whole text beside it says the same again.
    if found.iter().any(|(name, _)| name == "completion") || known("completion") {
        found.retain(|(name, _)| !matches!(name.as_str(), "text" | "messages"));
    }
    found.into_iter().collect()
}
