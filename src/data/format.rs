//! Dataset formats: how a row of columns becomes a prompt with its answers.
//!
//! Hides the columns of each format behind [`Format::example`].
//!
//! *Why*: a format is a function of one row. It knows nothing of files, tokens or losses, so a new
//! one is one file and one row of [`FORMATS`].

mod alpaca_eval;
mod columns;
mod compared;
mod definition;
mod guess;
mod hh;
mod messages;
mod pairs;
mod prompts;
mod ranked;
mod sft;
mod shapes;
mod suggest;
mod unpaired;

pub use self::columns::Columns;
pub use self::definition::{CommonRow, Format, Reading, RowExample, TruncationMode};
pub use self::guess::guess;
pub use self::ranked::Pairing;
pub(in crate::data) use self::suggest::without_answer;
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
    compared::FORMAT,
    ranked::FORMAT,
];

/// Rows of the format that their columns show: [`Format::of`] says which it is.
static GUESSED: Format = Format {
    name: "auto",
    columns: "rows of the format that their columns show",
    names: columns::NAMES,
    truncation: TruncationMode::KeepStart,
    has_pairs: false,
    writes_turns: false,
    splits_turns: true,
    fits: |_| 0,
    read: |row| Err(suggest::unknown(row, &Columns::default()).into()),
};

/// So many rows are looked at to see of which format they are.
const FIRST_ROWS: usize = 100;

impl Format {
    /// Prompts without any answer.
    pub const PROMPTS: &'static Self = &prompts::FORMAT;

    /// Whichever the rows show.
    pub const GUESSED: &'static Self = &GUESSED;

    /// The format of the rows of `files`: itself, or the one that their columns show.
    ///
    /// # Errors
    /// If they show none, or the files cannot be read.
    pub fn of(&'static self, files: &Files, columns: &Columns) -> Result<&'static Self> {
        match *self == GUESSED {
            true => Self::of_rows(files, columns),
            false => Ok(self),
        }
    }

    /// The format that the columns of the first rows of the files show.
    ///
    /// # Errors
    /// If no format reads such rows.
    pub fn of_file(files: &Files) -> Result<&'static Self> {
        Self::of_rows(files, &Columns::default())
    }

    fn of_rows(files: &Files, columns: &Columns) -> Result<&'static Self> {
        most(files, columns, |row| {
            let format = Self::of_row(row, columns)?;
            Some((format, *format == prompts::FORMAT))
        })
    }

    /// The format that the columns of a row show.
    pub fn of_row(row: &Row, columns: &Columns) -> Option<&'static Self> {
        let common = GUESSED.common(row, columns).ok()?;
        let row = &*common.row;
        let best = FORMATS.iter().max_by_key(|format| (format.fits)(row))?;
        let is_judged = ["label", "kto_tag"]
            .iter()
            .any(|name| row.get(name).is_some_and(|label| label.is_boolean()));
        if is_judged
            && *best != unpaired::FORMAT
            && shapes::of(unpaired::FORMAT.name, row).is_some()
        {
            return Self::named(unpaired::FORMAT.name).ok();
        }
        if (best.fits)(row) > 0 {
            // Prompts alone are what is left of a set with answers under other names.
            let shape = shapes::SHAPES.iter().find(|shape| shape.fits(row));
            return match shape {
                Some(shape) if *best == prompts::FORMAT => Self::named(shape.format).ok(),
                _ => Some(best),
            };
        }
        let shape = shapes::SHAPES.iter().find(|shape| shape.fits(row))?;
        Self::named(shape.format).ok()
    }

    /// Whether a row may have more than two answers.
    pub fn is_ranked(&self) -> bool {
        *self == ranked::FORMAT || *self == GUESSED
    }

    /// The format called `name`.
    pub fn named(name: &str) -> std::result::Result<&'static Self, String> {
        let all = FORMATS.iter().chain([&GUESSED]);
        all.clone()
            .find(|format| format.name == name)
            .ok_or_else(|| {
                let names = all.map(|format| format.name);
                let hint = match name {
                    "alpaca" => {
                        "leave it out: columns instruction and output are read as sft".into()
                    }
                    "sharegpt" => "leave it out: column conversations is read as sft".into(),
                    name => nearest(name, names),
                };
                format!("no format `{name}`; {hint}")
            })
    }
}

/// What most of the first rows of files are, of equally frequent things the first. `of` says it of a row,
/// and whether that may be what is left of something else whose columns are null: it counts where there is
/// nothing else.
///
/// # Errors
/// If the files cannot be read, or it says nothing of any row.
fn most<T: PartialEq>(
    files: &Files,
    columns: &Columns,
    of: impl Fn(&Row) -> Option<(T, bool)>,
) -> Result<T> {
    let mut first = None;
    let mut found: Vec<((T, bool), usize)> = Vec::new();
    for record in files.records().take(FIRST_ROWS) {
        let one = record?
            .1
            .row
            .and_then(|row| of(&row).ok_or_else(|| suggest::unknown(&row, columns)));
        match one {
            Ok(one) => match found.iter_mut().find(|(other, _)| *other == one) {
                Some((_, count)) => *count += 1,
                None => found.push((one, 1)),
            },
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    let by = |((_, is_rest), count): &((T, bool), usize)| (!is_rest, *count);
    // Of equals `max_by_key` takes the last.
    let best = found.into_iter().rev().max_by_key(by);
    let none = || Error::input("the file has no rows").at(files);
    best.map(|((one, _), _)| one)
        .ok_or_else(|| first.unwrap_or_else(none))
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
