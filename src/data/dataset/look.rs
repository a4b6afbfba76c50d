//! A look at rows without a config or a model: what they are, and what a run would make of them.
//!
//! *Why*: before there is a config, somebody has a file and wants to know how to write one.

use super::left_out::LeftOut;
use super::row::{RowReader, check_answers};
use crate::data::chat::Content;
use crate::data::config::{MAX_INVALID_FRACTION, OnInvalid};
use crate::data::format::{Columns, Format, Pairing, RowExample, guess};
use crate::data::rows::{Files, Invalid, Lines, RowError};
use crate::error::{Error, Result};
use crate::loss::Role;
use std::collections::BTreeMap;

/// What the rows of files are.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Their format.
    pub format: &'static Format,
    /// What `[data.columns]` has to say for it.
    pub columns: Columns,
    /// What else the format's names stand for, as the set is known.
    pub known: Vec<(&'static str, String)>,
    /// Whether strings have to go through a chat template for all of it to be read.
    pub apply_chat_template: bool,
    /// Rows in the files.
    pub rows: usize,
    /// Rows that can be used.
    pub usable: usize,
    /// Rows that cannot, by reason.
    pub invalid: BTreeMap<Invalid, Lines>,
    /// Columns that nothing reads.
    pub unread: Vec<String>,
    /// The row that was asked for, or the first that can be used: its number, its place as
    /// `file:line`, and what it says.
    pub row: (usize, String, RowExample),
    /// Whether more than a run allows cannot be used.
    pub too_many_invalid: bool,
}

/// Looks at all rows of files; `row` is the number of one to show.
///
/// # Errors
/// If the files cannot be read, no format fits them, no row can be used, or `row` cannot, with the reason.
pub fn look(files: &Files, format: Option<&'static Format>, row: Option<usize>) -> Result<Look> {
    let (format, columns) = match format {
        Some(format) => (format.of(files, &Columns::default())?, Columns::default()),
        None => guess(files)?,
    };
    let mut reader = RowReader::plain(format, &columns);
    let mut left_out = LeftOut::new(files, OnInvalid::Skip, 1.0);
    let (mut rows, mut usable, mut wanting) = (0, 0, 0);
    let (mut shown, mut known) = (None, Vec::new());
    for record in files.records() {
        let (number, record) = record?;
        rows += 1;
        let place = record.place;
        let read = record
            .row
            .map_err(|error| RowError::Unusable(Invalid::NotAnObject, error))
            .and_then(|row| {
                let (example, common) = reader.read(&row)?;
                check_answers(&example)?;
                let has_system = common.get("system").is_some_and(|system| *system != "");
                Ok((example, has_system, format.known(&row, &columns)))
            });
        match read {
            Ok((example, has_system, names)) => {
                usable += 1;
                wanting += usize::from(needs_template(format, &example, has_system));
                if row.unwrap_or(number) == number && shown.is_none() {
                    let mut pairs = example.pairs(Pairing::BestWorst, number);
                    shown = Some((number, place.to_string(), pairs.swap_remove(0)));
                    known = names;
                }
            }
            Err(error) if row == Some(number) => {
                let error = error.placed(&place).into_error();
                return Err(match error.remedy() {
                    Some(remedy) => {
                        let hint = format!("the row is left out; {remedy}");
                        error.hint(hint)
                    }
                    None => error.hint("the row is left out"),
                });
            }
            Err(error) => left_out.add(error, &place)?,
        }
    }
    left_out.check(rows, usable)?;
    // What most rows want; a few of another kind do not decide.
    let apply = 2 * wanting > usable;
    let mut unread = reader.unread();
    if apply {
        // It is a message then.
        unread.retain(|name| name != "system");
    }
    let shown = shown.ok_or_else(|| {
        Error::input(format!("there is no row {}", row.unwrap_or_default()))
            .hint(format!("rows are counted from 0; {rows} were read"))
            .at(files)
    })?;
    Ok(Look {
        format,
        known,
        apply_chat_template: apply,
        rows,
        usable,
        too_many_invalid: left_out.is_too_much(rows, MAX_INVALID_FRACTION),
        invalid: left_out.invalid,
        unread,
        row: shown,
        columns,
    })
}

// Strings beside messages, or beside a system message.
fn needs_template(format: &Format, example: &RowExample, has_system: bool) -> bool {
    let answers = example.answers.iter().map(|(_, answer)| answer);
    let is_text = |content: &Content| matches!(content, Content::Text(_));
    let all: Vec<bool> = answers.chain(&example.prompt).map(is_text).collect();
    let texts = all.iter().filter(|is_text| **is_text).count();
    let reads_system = format.names.contains(&"system") && example.prompt.is_some();
    (texts > 0 && texts < all.len()) || (texts == all.len() && has_system && reads_system)
}

impl Look {
    /// The answers of the shown row, by what they are called.
    pub fn answers(&self) -> impl Iterator<Item = (Role, &Content)> {
        self.row
            .2
            .answers
            .iter()
            .map(|(role, answer)| (*role, answer))
    }
}
