//! A row of JSON lines, of a JSON list or of a text: from its bytes to its columns.
//!
//! *Why*: a row is parsed from its own bytes alone, so rows are parsed on all cores. And what Python writes
//! is nearly JSON: NaN, half a character.

use super::json_list::Item;
use super::row::{Place, Record, Row, Unit};
use crate::error::{Error, Result};
use crate::io::untrusted;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// A row as it stands in its file.
pub(super) enum Raw {
    /// With its number.
    Line(usize, Vec<u8>),
    Item(Item),
}

impl Raw {
    /// Its text.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Line(_, bytes) => bytes,
            Self::Item(item) => &item.text,
        }
    }
}

/// The row, or why it is none.
pub(super) fn record(raw: &Raw, path: &Arc<Path>, is_text: bool) -> Record {
    let (place, row) = match raw {
        Raw::Line(number, bytes) => {
            let place = Place::new(path, Unit::Line, *number);
            let columns = line_columns(bytes, is_text).map_err(|error| error.at(&place));
            (place, columns)
        }
        Raw::Item(item) => {
            let place = Place::new(path, Unit::Item, item.number);
            let columns = item_columns(item, &place, path);
            (place, columns)
        }
    };
    let row = row.map(|columns| Row::new(place.clone(), columns));
    Record { place, row }
}

fn line_columns(bytes: &[u8], is_text: bool) -> Result<Map<String, Value>> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let byte = error.valid_up_to() + 1;
        Error::input(format!("byte {byte} of the line is not UTF-8")).hint("rows are UTF-8")
    })?;
    if is_text {
        let prompt = text.trim_end_matches('\r').into();
        return Ok(Map::from_iter([("prompt".to_owned(), prompt)]));
    }
    let what = match parse(text) {
        Ok(Value::Object(columns)) => return Ok(columns),
        Ok(Value::Array(_)) => "the line is a JSON list, not an object".to_owned(),
        Ok(_) => "the line is JSON, but not an object".to_owned(),
        Err(error) => not_json(&error, text, error.column()),
    };
    Err(Error::input(what).hint("every line is one JSON object with a row's columns"))
}

fn item_columns(item: &Item, place: &Place, path: &Path) -> Result<Map<String, Value>> {
    let text = str::from_utf8(&item.text).map_err(|error| {
        let byte = error.valid_up_to() + 1;
        Error::input(format!("byte {byte} of the item is not UTF-8"))
            .hint("rows are UTF-8")
            .at(place)
    })?;
    match parse(text) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(_) => Err(Error::input("the item is JSON, but not an object")
            .hint("every item is one JSON object with a row's columns")
            .at(place)),
        Err(error) => {
            let before = if error.line() == 1 {
                item.column - 1
            } else {
                0
            };
            let what = not_json(&error, text, before + error.column());
            let line = item.line + error.line() - 1;
            Err(Error::input(what)
                .hint("a file that begins with `[` is one JSON list of objects")
                .at(format!("{}:{line}", path.display())))
        }
    }
}

/// The value of a text. NaN and infinite numbers, which Python's `json` writes by default, are null.
pub(super) fn parse(text: &str) -> serde_json::Result<Value> {
    untrusted::parse(text).or_else(|error| match without_nan(text) {
        Some(text) => untrusted::parse(&text),
        None => Err(error),
    })
}

// The text with null where numbers are none; `None` if there are no such.
fn without_nan(text: &str) -> Option<String> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !WORDS.iter().any(|word| text.contains(word)) {
        return None;
    }
    let mut kept = String::with_capacity(text.len());
    let (mut in_string, mut escaped, mut found) = (false, false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = WORDS
            .iter()
            .find(|word| !in_string && rest.starts_with(**word));
        if let Some(word) = word {
            kept.push_str("null");
            rest = &rest[word.len()..];
            found = true;
            continue;
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        kept.push(c);
        rest = &rest[c.len_utf8()..];
    }
    found.then_some(kept)
}

// Without its own "at line 1", which would be read as a line of the file.
fn not_json(error: &serde_json::Error, text: &str, column: usize) -> String {
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default();
    let escape = text.contains("\\ud") || text.contains("\\uD");
    let half = ["surrogate", "hex escape", "unicode code point"];
    if escape && half.iter().any(|words| what.contains(words)) {
        return format!(
            "not JSON: half of a character at column {column}: a lone surrogate such as \\ud83d, \
             as Python writes of a text that was cut"
        );
    }
    format!("not JSON: {what} at column {column}")
}
