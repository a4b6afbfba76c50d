//! Dataset formats: how a row of columns becomes a prompt with its answers.
//!
//! Hides the columns of each format behind [`Format::example`].
//!
//! *Why*: a format is a function of one row. It knows nothing of files, tokens or losses, so a new
//! one is one file and one row of [`FORMATS`].

mod alpaca_eval;
mod hh;
mod pairs;
mod prompts;
mod sft;
mod unpaired;

use super::census::Invalid;
use super::chat::Content;
use super::config::TruncationMode;
use super::files::Files;
use super::read::Row;
use crate::error::{Error, Result, nearest};
use crate::loss::Role;
use serde::{Deserialize, Deserializer, Serializer};

/// A prompt with its answers, as the row has them.
#[derive(Debug, Clone, PartialEq)]
pub struct RowExample {
    /// What every answer answers. `None`: the one answer is a whole text, or a whole conversation
    /// that has its prompt in it.
    pub prompt: Option<Content>,
    /// Chosen before rejected; none where the answers come from a sample file.
    pub answers: Vec<(Role, Content)>,
    /// p(chosen > rejected) where the row carries a soft label.
    pub preference: Option<f64>,
    /// The scores of the chosen and the rejected answer, where something reads them.
    pub scores: Option<[f64; 2]>,
}

/// What a row turned out to be. A malformed one is an error instead.
pub type Reading = std::result::Result<RowExample, Invalid>;

/// A dataset format.
#[derive(Debug)]
pub struct Format {
    /// Its name in a configuration.
    pub name: &'static str,
    /// The columns that it reads, for people.
    pub columns: &'static str,
    /// The part of a prompt that stays when it is cut.
    pub truncation: TruncationMode,
    /// How many of a row's columns it would read; 0 where the row is not of this format.
    fits: fn(&Row) -> usize,
    read: fn(&Row) -> Result<Reading>,
}

/// Every format. Where a row fits two equally well, the later one is meant.
pub static FORMATS: [Format; 6] = [
    hh::FORMAT,
    pairs::FORMAT,
    unpaired::FORMAT,
    prompts::FORMAT,
    sft::FORMAT,
    alpaca_eval::FORMAT,
];

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Format {
    /// Prompts without any answer.
    pub const PROMPTS: &'static Self = &prompts::FORMAT;

    /// From a row to its contents. An error for a row that is not of this format.
    pub fn example(&self, row: &Row) -> Result<Reading> {
        (self.read)(row).map_err(|error| match error.remedy() {
            None => error.hint(self.columns_hint()),
            Some(_) => error,
        })
    }

    /// What would be valid, for messages.
    pub fn columns_hint(&self) -> String {
        format!("format `{}` reads {}", self.name, self.columns)
    }

    /// The format whose columns the first row of the files has.
    ///
    /// # Errors
    /// If no format reads such rows.
    pub fn of_file(files: &Files) -> Result<&'static Self> {
        let row = first(files)?;
        let best = FORMATS.iter().max_by_key(|format| (format.fits)(&row));
        best.filter(|format| (format.fits)(&row) > 0)
            .ok_or_else(|| {
                let valid: Vec<String> = FORMATS.iter().map(Self::columns_hint).collect();
                Error::input("the columns of the row are of no known format")
                    .hint(valid.join("; "))
                    .at(&row.place)
            })
    }

    /// The format called `name`.
    pub fn named(name: &str) -> std::result::Result<&'static Self, String> {
        FORMATS
            .iter()
            .find(|format| format.name == name)
            .ok_or_else(|| {
                let names = FORMATS.iter().map(|format| format.name);
                format!("no format `{name}`; {}", nearest(name, names))
            })
    }
}

fn first(files: &Files) -> Result<Row> {
    match files.rows().next().transpose()? {
        Some((_, row)) => Ok(row),
        None => Err(Error::input("the file has no rows").at(files)),
    }
}

// For `#[serde(with)]`.
pub(super) mod by_name {
    use super::{Deserialize, Deserializer, Format, Serializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<&'static Format, D::Error> {
        let name = String::deserialize(from)?;
        Format::named(&name).map_err(serde::de::Error::custom)
    }

    pub fn serialize<S: Serializer>(format: &&'static Format, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(format.name)
    }
}

// The number of `columns`, if the row has them all.
fn has(row: &Row, columns: &[&str]) -> usize {
    match columns.iter().all(|column| row.get(column).is_some()) {
        true => columns.len(),
        false => 0,
    }
}

fn pair(row: &Row, prompt: Content, chosen: Content, rejected: Content) -> Result<Reading> {
    Ok(Ok(RowExample {
        prompt: Some(prompt),
        answers: vec![(Role::Chosen, chosen), (Role::Rejected, rejected)],
        preference: preference(row)?,
        scores: None,
    }))
}

fn preference(row: &Row) -> Result<Option<f64>> {
    let Some(value) = row.get("preference") else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(p) if (0.0..=1.0).contains(&p) => Ok(Some(p)),
        _ => Err(row.wrong(
            "preference",
            "a number in [0, 1], the probability that `chosen` is preferred",
        )),
    }
}
