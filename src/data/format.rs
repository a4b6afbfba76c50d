//! Dataset formats: how a row of columns becomes a prompt with its answers.
//!
//! Hides the columns of each format behind [`Format::example`].
//!
//! *Why*: a format is a function of one row. It knows nothing of files, tokens or losses, so a new
//! one is one file and one row of [`FORMATS`].

mod alpaca_eval;
mod definition;
mod hh;
mod pairs;
mod prompts;
mod sft;
mod unpaired;

pub use self::definition::{Format, Reading, RowExample, TruncationMode};
use crate::data::rows::Files;
use crate::data::rows::read::Row;
use crate::error::{Error, Result, nearest};
use serde::{Deserialize, Deserializer, Serializer};

/// Every format. Where a row fits two equally well, the later one is meant.
pub static FORMATS: &[Format] = &[
    hh::FORMAT,
    pairs::FORMAT,
    unpaired::FORMAT,
    prompts::FORMAT,
    sft::FORMAT,
    alpaca_eval::FORMAT,
];

impl Format {
    /// Prompts without any answer.
    pub const PROMPTS: &'static Self = &prompts::FORMAT;

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

/// A format by its name, for `#[serde(with)]`.
pub mod by_name {
    use super::{Deserialize, Deserializer, Format, Serializer};

    /// From a name in [`FORMATS`](super::FORMATS).
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<&'static Format, D::Error> {
        let name = String::deserialize(from)?;
        Format::named(&name).map_err(serde::de::Error::custom)
    }

    /// As its name.
    pub fn serialize<S: Serializer>(format: &&'static Format, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(format.name)
    }
}
