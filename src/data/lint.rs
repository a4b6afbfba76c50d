//! Checks a dataset for faults, without a model.
//!
//! Hides how rows are compared without keeping their texts: by hashes, some hundred bytes a row.
//!
//! *Why*: what is wrong with a dataset is cheap to find before a run and hard to see after it: rows that
//! are there twice, evaluation rows that were trained on, answers that are told apart by their length.
//! Rows are read as a run reads them, so what is found is what would be trained on.

mod check;
mod facts;
mod lengths;
mod tally;
mod text;

use crate::data::config::RowConfig;
use crate::data::rows::Files;
use crate::data::rows::read::Record;
use crate::error::Result;
use rayon::prelude::*;
use serde_json::Value;
use std::mem;

pub use check::{Check, Level};
pub use lengths::{LengthBias, LengthSummary, token_bias};
pub use tally::{Finding, SplitReport, Statistics};

use facts::{Facts, facts};
use tally::{Seen, Tally};

/// The bytes of text that are looked at together.
const CHUNK: usize = 8 << 20;

/// Looks at the rows of training files, and of evaluation files beside them: the report of each.
///
/// # Errors
/// If a file cannot be read, but for rows that cannot be used: those are findings.
pub fn lint(
    train: &Files,
    eval: Option<&Files>,
    rows: &RowConfig,
) -> Result<(SplitReport, Option<SplitReport>)> {
    let (report, seen) = split(train, rows, None)?;
    let eval = eval
        .map(|files| split(files, rows, Some(&seen)))
        .transpose()?;
    Ok((report, eval.map(|(report, _)| report)))
}

fn split(files: &Files, rows: &RowConfig, train: Option<&Seen>) -> Result<(SplitReport, Seen)> {
    let rows = &RowConfig {
        format: rows.format.of(files, &rows.columns)?,
        ..rows.clone()
    };
    let mut tally = Tally::new(rows.format);
    let (mut waiting, mut bytes) = (Vec::new(), 0);
    let mut take = |waiting: Vec<(usize, Record)>| -> Result<()> {
        let read = waiting.into_par_iter().with_min_len(64);
        let read: Vec<Result<Facts>> = read
            .map(|(number, record)| facts(number, record, rows))
            .collect();
        for facts in read {
            tally.add(&facts?, train);
        }
        Ok(())
    };
    for record in files.records() {
        let (number, record) = record?;
        bytes += size(&record);
        waiting.push((number, record));
        if bytes > CHUNK {
            bytes = 0;
            take(mem::take(&mut waiting))?;
        }
    }
    take(waiting)?;
    Ok(tally.finish())
}

/// About the bytes that a record takes in memory.
fn size(record: &Record) -> usize {
    fn of(value: &Value) -> usize {
        size_of::<Value>()
            + match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(of).sum(),
                Value::Object(fields) => fields
                    .iter()
                    .map(|(name, value)| name.len() + of(value))
                    .sum(),
                _ => 0,
            }
    }
    let columns = record.row.iter().flat_map(|row| row.columns());
    size_of::<Record>() + columns.map(|(_, value)| of(value)).sum::<usize>()
}
