//! A row, and the interface to a file of rows.
//!
//! *Why*: a message about data must lead to the line, so a row knows where it stands; and everything
//! behind this sees rows of JSON, whatever the file is.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fmt::{self, Display};
use std::path::Path;
use std::sync::Arc;

/// Where a row stands, as errors name it: `file:line`, `file: item N` in a JSON list, or `file: row N`
/// where there are no lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: Arc<Path>,
    unit: Unit,
    number: usize,
}

/// What is counted in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Lines, from 1, blank ones too.
    Line,
    /// Items of a JSON list, from 1.
    Item,
    /// Rows, from 0, as everywhere where rows have a number.
    Row,
}

impl Place {
    pub(super) fn new(path: &Arc<Path>, unit: Unit, number: usize) -> Self {
        Self {
            path: path.clone(),
            unit,
            number,
        }
    }

    /// Without the file: the number of the line or item, or `row N`.
    pub fn short(&self) -> String {
        match self.unit {
            Unit::Line | Unit::Item => self.number.to_string(),
            Unit::Row => format!("row {}", self.number),
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let between = match self.unit {
            Unit::Line => ":",
            Unit::Item => ": item ",
            Unit::Row => ": row ",
        };
        write!(f, "{}{between}{}", self.path.display(), self.number)
    }
}

/// A row as the JSON object of its columns. A line of a text file is one with the column `prompt`.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where it stands.
    pub place: Place,
    columns: Map<String, Value>,
}

impl Row {
    pub(super) fn new(place: Place, columns: Map<String, Value>) -> Self {
        Self { place, columns }
    }

    /// A column; null is the same as none.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.columns.get(column).filter(|value| !value.is_null())
    }

    /// A column as it is, null too.
    pub(in crate::data) fn raw(&self, column: &str) -> Option<&Value> {
        self.columns.get(column)
    }

    /// The same row with other columns.
    pub(in crate::data) fn with(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Self {
        let mut row = self.clone();
        change(&mut row.columns);
        row
    }

    /// The names of its columns, for messages.
    pub(in crate::data) fn names(&self) -> String {
        let names = self.columns.keys().map(|name| format!("`{name}`"));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Every column with its name.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.columns
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// A column that must be there.
    pub fn need(&self, column: &str) -> Result<&Value> {
        self.get(column).ok_or_else(|| {
            let what = match self.columns.contains_key(column) {
                true => format!("column `{column}` is null"),
                false if self.columns.is_empty() => "the row has no column at all".to_owned(),
                false => format!("the row has no column `{column}`, only {}", self.names()),
            };
            Error::input(what).at(&self.place)
        })
    }

    /// A column that must be a string.
    pub fn text(&self, column: &str) -> Result<&str> {
        let value = self.need(column)?;
        value.as_str().ok_or_else(|| self.wrong(column, "a string"))
    }

    /// The error of a column that is not `valid`.
    pub fn wrong(&self, column: &str, valid: &str) -> Error {
        let found = match self.get(column) {
            None => "missing".to_owned(),
            Some(Value::Array(_)) => "a list".to_owned(),
            Some(Value::Object(_)) => "an object".to_owned(),
            Some(Value::String(_)) => "a string".to_owned(),
            Some(value) => value.to_string(),
        };
        Error::input(format!("column `{column}` is {found}, not {valid}")).at(&self.place)
    }
}

/// What stands at a place of a file: a row, or something that is none.
#[derive(Debug, Clone)]
pub struct Record {
    /// Where it stands.
    pub place: Place,
    /// The row. An error names the place.
    pub row: Result<Row>,
}

/// A file of one kind.
pub(super) trait Source {
    /// What stands next in the file; `None` at its end. A file without rows is an error.
    fn next(&mut self) -> Result<Option<Record>>;

    /// Passes over `rows` rows without parsing them; the number of rows there were.
    fn pass(&mut self, rows: usize) -> Result<usize>;
}
