//! What is said of rows that no format reads, or that lack an answer.
//!
//! *Why*: somebody with a file of his own has to see what the columns are, what they are closest to
//! and what that lacks. A list of all that would be valid hides it.

use super::columns::{Columns, NAMES};
use super::{Format, prompts, sft, unpaired};
use crate::data::rows::RowError;
use crate::data::rows::read::Row;
use crate::error::{ALIKE, Error, most_alike};
use serde_json::Value as Json;

/// The columns of each format that no row can do without, the most usual format first.
const WHOLE: &[(&str, &[&str])] = &[
    ("pairs", &["prompt", "chosen", "rejected"]),
    ("unpaired", &["prompt", "completion", "label"]),
    ("sft", &["prompt", "completion"]),
    ("compared", &["prompt", "output_1", "output_2", "winner"]),
    ("ranked", &["prompt", "answers", "ranks"]),
    ("alpaca_eval", &["instruction", "output_1", "output_2"]),
];

/// The error of a row whose columns are those of no format.
pub(super) fn unknown(row: &Row, columns: &Columns) -> Error {
    if let Err(RowError::Unusable(_, error)) = columns.values(row) {
        return match error.remedy() {
            Some(_) => error,
            None => error.hint("[data.columns] is of all files: give their columns the same names"),
        };
    }
    let of = |what: String, hint: String| Error::input(what).hint(hint).at(&row.place);
    let names = row.names();
    if names.is_empty() {
        let hint = "a row is an object like {\"prompt\": ..., \"chosen\": ..., \"rejected\": ...}";
        return of("the row has no column at all".to_owned(), hint.to_owned());
    }
    if let Some(name) = list_of_rows(row) {
        let what = format!("`{name}` is a list of rows in an object");
        let hint = "the rows must be the list itself: [{...}, {...}], or one object per line";
        return of(what, hint.to_owned());
    }
    let what = format!("the columns of the row are of no known format: {names}");
    let (format, lacking) = nearest_format(row);
    let mut hint = match mistyped(row) {
        Some(meant) => format!("{meant} Rename them, or name them in [data.columns]"),
        None => "name them in [data.columns]".to_owned(),
    };
    hint += &format!(
        "; the nearest format, `{format}`, lacks {lacking}; the guide's page data has all"
    );
    of(what, hint)
}

/// The error of a row that lacks an answer, with what its columns are.
pub(in crate::data) fn without_answer(format: &Format, row: &Row, error: Error) -> Error {
    let Some(remedy) = error.remedy().map(str::to_owned) else {
        return error;
    };
    let is = |other: &Format| *format == *other;
    let null = ["chosen", "rejected", "completion"];
    let null = null
        .iter()
        .find(|name| row.raw(name).is_some_and(Json::is_null));
    let what = match null {
        Some(name) => format!("column `{name}` is null"),
        None if is(&prompts::FORMAT) => match mistyped(row) {
            Some(meant) => format!("the columns are {}: {meant}", row.names()),
            None => format!("the rows are prompts without an answer: {}", row.names()),
        },
        None if is(&unpaired::FORMAT) => {
            "the rows are of format `unpaired`, one judged answer each, for the losses kto and bco"
                .to_owned()
        }
        None if is(&sft::FORMAT) => {
            "the rows are of format `sft`, one answer each, for expo sft".to_owned()
        }
        None => return error,
    };
    error.hint(format!("{remedy}; {what}"))
}

/// The names that columns were probably meant to have, as a question.
fn mistyped(row: &Row) -> Option<String> {
    let meant = row.columns().filter_map(|(column, _)| {
        let (name, likeness) = most_alike(column, NAMES.iter().copied())?;
        let is_new = likeness > ALIKE && name != column && row.raw(name).is_none();
        is_new.then(|| format!("`{name}` by `{column}`"))
    });
    let meant: Vec<String> = meant.collect();
    (!meant.is_empty()).then(|| format!("did you mean {}?", meant.join(", ")))
}

/// The format of which a row has most, and the columns that it lacks.
fn nearest_format(row: &Row) -> (&'static str, String) {
    let missing = |columns: &'static [&'static str]| -> Vec<&'static str> {
        let lacks = columns.iter().filter(|name| row.get(name).is_none());
        lacks.copied().collect()
    };
    let mut all = WHOLE.iter().map(|(format, columns)| {
        let missing = missing(columns);
        (*format, columns.len() - missing.len(), missing)
    });
    let first = all.next().unwrap_or_default();
    // Of equals the more usual one.
    let (format, _, missing) = all.fold(first, |best, other| match other.1 > best.1 {
        true => other,
        false => best,
    });
    let missing: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
    (format, missing.join(", "))
}

/// The column of an object around rows, as in `{"train": [{...}]}`.
fn list_of_rows(row: &Row) -> Option<&str> {
    let is_message = |item: &Json| {
        ["role", "from", "content", "value"]
            .iter()
            .any(|key| item.get(key).is_some())
    };
    let mut columns = row.columns();
    let found = columns.find(|(_, value)| {
        let first = value.as_array().and_then(|items| items.first());
        first.is_some_and(|item| item.is_object() && !is_message(item))
    });
    found.map(|(name, _)| name)
}
