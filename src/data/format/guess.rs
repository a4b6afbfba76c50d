//! Of which format the rows of files are, where nobody says.
//!
//! *Why*: the names that people give to prompt and answer are few. Training takes none of them for
//! granted, but whoever writes a config is helped by a proposal.

use super::columns::{Columns, Path};
use super::{FIRST_ROWS, Format, Poll, unknown};
use crate::data::rows::Files;
use crate::data::rows::read::Row;
use crate::error::{Error, Result};

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
    let mut first = None;
    let mut found = Poll::default();
    for record in files.records().take(FIRST_ROWS) {
        let row = match record?.1.row {
            Ok(row) => row,
            Err(error) => {
                first.get_or_insert(error);
                continue;
            }
        };
        let plain = Columns::default();
        let known = Format::of_row(&row, &plain);
        // A prompt alone is what is left of a pair under other names.
        let columns = renamed(&row);
        let guessed = Format::of_row(&row, &columns);
        match (known, guessed) {
            (Some(format), _) if *format != *Format::PROMPTS => found.add((format, plain), false),
            (None | Some(_), Some(format)) if *format != *Format::PROMPTS => {
                found.add((format, columns), false);
            }
            (Some(format), _) => found.add((format, plain), true),
            (None, Some(format)) => found.add((format, columns), true),
            (None, None) => {
                first.get_or_insert(unknown(&row));
            }
        }
    }
    let none = || Error::input("the file has no rows").at(files);
    found.most().ok_or_else(|| first.unwrap_or_else(none))
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
