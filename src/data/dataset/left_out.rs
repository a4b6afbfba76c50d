//! The rows that cannot be used, while they are read.
//!
//! Hides what happens to such a row, and when they are too many.
//!
//! *Why*: one bad row among a million is no reason to stop, and a file of nothing else is. Whoever
//! reads rows asks here, so that it is the same for training, sampling and every other reader.

use crate::data::config::OnInvalid;
use crate::data::rows::read::Place;
use crate::data::rows::{Files, Invalid, Lines, RowError};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// The rows of files that were left out so far.
pub(super) struct LeftOut<'a> {
    files: &'a Files,
    on_invalid: OnInvalid,
    /// By reason.
    pub invalid: BTreeMap<Invalid, Lines>,
    // Of the first of them.
    first: Option<Error>,
}

impl<'a> LeftOut<'a> {
    /// None yet.
    pub fn new(files: &'a Files, on_invalid: OnInvalid) -> Self {
        Self {
            files,
            on_invalid,
            invalid: BTreeMap::new(),
            first: None,
        }
    }

    /// Leaves the row at `place` out.
    ///
    /// # Errors
    /// If it may not be left out, or the error is not the row's.
    pub fn add(&mut self, error: RowError, place: &Place) -> Result<()> {
        let (reason, error) = match error {
            RowError::Fatal(error) => return Err(error),
            RowError::Unusable(reason, error) => (reason, error),
        };
        // A rejected answer is no fault of its row.
        if self.on_invalid == OnInvalid::Error && reason != Invalid::NothingChosen {
            return Err(match error.remedy() {
                None => error.hint(MEND),
                Some(_) => error,
            });
        }
        let lines = self.invalid.entry(reason).or_default();
        lines.add_unusable(self.files.name(place), &error);
        self.first.get_or_insert(error);
        Ok(())
    }

    /// Whether enough is left of `rows` rows, of which `used` could be used.
    ///
    /// # Errors
    /// If none could: with the whole error of the first.
    pub fn check(&self, rows: usize, used: usize) -> Result<()> {
        if used > 0 {
            return Ok(());
        }
        let mut what = format!("none of {rows} rows is usable");
        if self.invalid.len() > 1 {
            what = format!("{what}: {}", self.reasons());
        }
        let mut error = Error::input(what);
        if let Some(first) = &self.first {
            error = error.hint(first.to_string());
        }
        Err(error.at(self.files))
    }

    fn reasons(&self) -> String {
        let reason = |(reason, lines): (&Invalid, &Lines)| {
            format!("{} {reason} (lines {})", lines.rows, lines.shown())
        };
        let reasons: Vec<String> = self.invalid.iter().map(reason).collect();
        reasons.join(", ")
    }
}

const MEND: &str = "mend the row, or set data.on_invalid = \"skip\"";
