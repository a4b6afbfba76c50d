//! Opening a [`Dataset`]: files of rows become examples.

use super::Dataset;
use super::inspect::Inspection;
use super::reader::{CHUNK, Source, read};
use super::samples::Samples;
use super::store::Store;
use crate::data::config::RowConfig;
use crate::data::rows::Files;
use crate::data::tokens::Tokenizer;
use crate::error::{Error, Result};
use crate::loss::Needs;

impl Dataset {
    /// Reads the rows of `files` into what the loss needs. An example has responses of the needed
    /// roles only; the length limit sees no others.
    ///
    /// `samples` is used where [`Needs::all`] or [`Needs::optional`] has
    /// [`Role::Sampled`](crate::loss::Role::Sampled); then every row needs one. Where
    /// [`Needs::batch`] has [`Role::Mismatched`](crate::loss::Role::Mismatched), answers go from row
    /// to row by [`mismatched_answers`](super::mismatched_answers).
    ///
    /// # Errors
    /// A file that cannot be read is an error, and so is a dataset without a usable row, a row that
    /// cannot be used where `on_invalid` says so, or a temporary directory that cannot hold what memory does not.
    pub fn open(
        files: &Files,
        config: &RowConfig,
        tokenizer: &Tokenizer,
        needs: &Needs,
        samples: Option<&Samples>,
    ) -> Result<Self> {
        let source = Source {
            files,
            config,
            tokenizer,
            needs,
            samples,
        };
        Ok(read(&source, None, Store::default(), CHUNK)?.0)
    }

    /// As [`open`](Self::open), with a look at the row of this number.
    ///
    /// # Errors
    /// Also if there is no such row, or it cannot be used; with the reason.
    pub fn inspect(
        files: &Files,
        config: &RowConfig,
        tokenizer: &Tokenizer,
        needs: &Needs,
        samples: Option<&Samples>,
        row: usize,
    ) -> Result<(Self, Inspection)> {
        let source = Source {
            files,
            config,
            tokenizer,
            needs,
            samples,
        };
        let (dataset, found) = read(&source, Some(row), Store::default(), CHUNK)?;
        let missing = || {
            let rows = dataset.report.rows;
            Error::input(format!("there is no row {row}"))
                .hint(format!("rows are counted from 0; {rows} were read"))
                .at(files)
        };
        let inspection = found.ok_or_else(missing)?;
        Ok((dataset, inspection))
    }
}
