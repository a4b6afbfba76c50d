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
    most: f64,
    /// By reason.
    pub invalid: BTreeMap<Invalid, Lines>,
    // Of the first of them.
    first: Option<Error>,
}

impl<'a> LeftOut<'a> {
    /// None yet; `most` is the largest part of the rows that may be unusable.
    pub fn new(files: &'a Files, on_invalid: OnInvalid, most: f64) -> Self {
        Self {
            files,
            on_invalid,
            most,
            invalid: BTreeMap::new(),
            first: None,
        }
    }

    /// Leaves the row at `place` out.
    ///
    /// # Errors
    /// If it may not be left out, or the error is not the row's.
    pub fn add(&mut self, error: RowError, place: &Place) -> Result<()> {
        let (reason, error) = match error.placed(place) {
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
    /// If none could, with the whole error of the first; if there are a hundred or more and too many
    /// could not for what they say.
    pub fn check(&self, rows: usize, used: usize) -> Result<()> {
        if used > 0 && self.is_too_much(rows, self.most) {
            let faults = self.faults();
            let percent = 100.0 * faults as f64 / rows as f64;
            let most = self.most;
            return Err(Error::input(format!(
                "{faults} of {rows} rows ({percent:.1}%) cannot be used: {}",
                self.reasons()
            ))
            .hint(format!(
                "mend them, or raise data.max_invalid_fraction (now {most})"
            ))
            .at(self.files));
        }
        if used > 0 {
            return Ok(());
        }
        let mut what = format!("none of {rows} rows is usable");
        if self.invalid.len() > 1 {
            what = format!("{what}: {}", self.reasons());
        }
        let mut error = Error::input(what);
        if let Some(first) = &self.first {
            error = error.hint(match self.invalid.contains_key(&Invalid::NoSample) {
                true => format!("{first}; {DRAW}"),
                false => first.to_string(),
            });
        }
        Err(error.at(self.files))
    }

    /// Whether something is left of each name in a list, of which so many rows are used and so many are
    /// left out.
    ///
    /// # Errors
    /// If of a name with a hundred rows or more none is: among many others they might go unseen.
    pub fn check_parts(&self, parts: &[(usize, usize)]) -> Result<()> {
        let mut named = self.files.weights().zip(parts);
        // Not where it may be by choice.
        let faults = self.faults();
        let vanished = |(_, (used, left_out)): &(_, &(usize, usize))| {
            parts.len() > 1 && *used == 0 && (FEW..=faults).contains(left_out)
        };
        match named.find(vanished) {
            None => Ok(()),
            Some(((name, _), (_, rows))) => Err(Error::input(format!(
                "none of the {rows} rows of {name} is usable; left out of all files: {}",
                self.reasons()
            ))
            .hint("fix it, or remove it from the list")
            .at(self.files)),
        }
    }

    /// Whether too many of `rows` rows cannot be used for what they say.
    pub fn is_too_much(&self, rows: usize, most: f64) -> bool {
        rows >= FEW && self.faults() as f64 > most * rows as f64
    }

    // A choice of the user is none.
    fn faults(&self) -> usize {
        let faults = self
            .invalid
            .iter()
            .filter(|(reason, _)| !reason.is_choice());
        faults.map(|(_, lines)| lines.rows).sum()
    }

    /// Each reason with its rows, in words.
    pub fn said(&self) -> Vec<String> {
        let reason = |(reason, lines): (&Invalid, &Lines)| {
            format!("{} {reason} (lines {})", lines.rows, lines.shown())
        };
        self.invalid.iter().map(reason).collect()
    }

    fn reasons(&self) -> String {
        self.said().join(", ")
    }
}

/// Of fewer rows a part says little.
const FEW: usize = 100;

const DRAW: &str = "expo sample with this config draws responses to all of its prompts; or set data.samples = \"auto\"";

const MEND: &str = "mend the row, or set data.on_invalid = \"skip\"";
