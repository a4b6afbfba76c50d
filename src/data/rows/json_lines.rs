//! JSON lines, one JSON list, or lines of text.
//!
//! Hides line splitting, the items of a list, and the recognition of files that are something else.
//!
//! *Why*: the files that are wrong in practice are rarely wrong JSON: they are a pointer left by Git
//! LFS, a web page, an archive, UTF-16. And what Python writes is nearly JSON: NaN, half a character.

use super::compressed;
use super::json_list::{Item, Items};
use super::recognize::something_else;
use super::row::{Place, Record, Row, Source, Unit};
use crate::error::{Error, Result};
use crate::io::untrusted::{self, LONGEST_LINE, Line};
use serde_json::{Map, Value};
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;

/// So many blank lines in a row are not a dataset, but a kilobyte of gzip may hold them.
const MOST_BLANK_LINES: usize = 1 << 20;

pub(super) struct JsonLines {
    path: Arc<Path>,
    reader: Box<dyn BufRead>,
    compression: Option<&'static str>,
    is_text: bool,
    line: usize,
    // Where the file is one JSON list.
    items: Option<Items>,
    started: bool,
    any: bool,
}

impl JsonLines {
    pub(super) fn new(path: Arc<Path>, plain: compressed::Plain, is_text: bool) -> Self {
        Self {
            path,
            reader: plain.reader,
            compression: plain.compression,
            is_text,
            line: 0,
            items: None,
            started: false,
            any: false,
        }
    }

    fn unreadable(&self, error: &io::Error) -> Error {
        match compressed::damaged(self.compression, error) {
            Some(error) => error.at(self.place()),
            None => Error::io(&*self.path, error),
        }
    }

    fn place(&self) -> Place {
        Place::new(&self.path, Unit::Line, self.line)
    }

    fn peek(&mut self) -> Result<&[u8]> {
        if let Err(error) = self.reader.fill_buf() {
            // It is that of the line to come.
            self.line += 1;
            return Err(self.unreadable(&error));
        }
        let filled = self.reader.fill_buf();
        filled.map_err(|error| Error::io(&*self.path, &error))
    }

    // What the file is, by its beginning.
    fn start(&mut self) -> Result<()> {
        self.started = true;
        let is_text = self.is_text;
        let start = self.peek()?;
        let line = start
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        if let Some((what, hint)) = something_else(line, is_text) {
            return Err(Error::input(what).hint(hint).at(self.path.display()));
        }
        // The byte order mark of UTF-8 says nothing.
        if start.starts_with(untrusted::BYTE_ORDER_MARK) {
            self.reader.consume(untrusted::BYTE_ORDER_MARK.len());
        }
        if self.is_text {
            return Ok(());
        }
        let mut passed = 0;
        loop {
            let start = self.peek()?;
            let blank = start.iter().take_while(|byte| byte.is_ascii_whitespace());
            let (blank, lines) = blank.fold((0, 0), |(bytes, lines), byte| {
                (bytes + 1, lines + usize::from(*byte == b'\n'))
            });
            let next = start.get(blank).copied();
            let ended = start.is_empty();
            self.reader.consume(blank);
            self.line += lines;
            passed += blank;
            if self.line > MOST_BLANK_LINES {
                return Err(self.blank());
            }
            if passed > LONGEST_LINE {
                return Err(untrusted::too_long().at(self.place()));
            }
            if next == Some(b'[') {
                let reader = std::mem::replace(&mut self.reader, Box::new(io::empty()));
                self.items = Some(Items::new(reader, self.line + 1));
            }
            if next.is_some() || ended {
                return Ok(());
            }
        }
    }

    fn blank(&self) -> Error {
        Error::input(format!("{MOST_BLANK_LINES} blank lines in a row"))
            .hint("every row stands on a line of its own")
            .at(self.place())
    }

    /// The next row as it stands in the file; `None` at its end.
    fn next_raw(&mut self) -> Result<Option<Raw>> {
        if !self.started {
            self.start()?;
        }
        let raw = match &mut self.items {
            Some(items) => items
                .next()
                .map_err(|error| match error {
                    Ok(error) => error.at(self.path.display()),
                    Err((line, error)) => {
                        self.line = line;
                        self.unreadable(&error)
                    }
                })?
                .map(Raw::Item),
            None => self.next_filled_line()?.map(Raw::Line),
        };
        if raw.is_none() && !self.any {
            return Err(Error::input("the file has no rows")
                .hint("a dataset is one JSON object per line, or one list of them")
                .at(self.path.display()));
        }
        Ok(raw)
    }

    // The next line that is not blank.
    fn next_filled_line(&mut self) -> Result<Option<Vec<u8>>> {
        let before = self.line;
        loop {
            self.line += 1;
            let line =
                untrusted::line(&mut self.reader).map_err(|error| self.unreadable(&error))?;
            let bytes = match line {
                Line::Whole(bytes) => bytes,
                Line::TooLong => return Err(untrusted::too_long().at(self.place())),
                Line::End => return Ok(None),
            };
            let blank = str::from_utf8(&bytes).is_ok_and(|text| text.trim().is_empty());
            if !blank {
                return Ok(Some(bytes));
            }
            if self.line - before > MOST_BLANK_LINES {
                return Err(self.blank());
            }
        }
    }

    fn record(&self, raw: Raw) -> Record {
        let (place, row) = match raw {
            Raw::Line(bytes) => {
                let place = self.place();
                let columns = self.columns(&bytes).map_err(|error| error.at(&place));
                (place, columns)
            }
            Raw::Item(item) => {
                let place = Place::new(&self.path, Unit::Item, item.number);
                let columns = item_columns(&item, &place, &self.path);
                (place, columns)
            }
        };
        let row = row.map(|columns| Row::new(place.clone(), columns));
        Record { place, row }
    }

    fn columns(&self, bytes: &[u8]) -> Result<Map<String, Value>> {
        let text = str::from_utf8(bytes).map_err(|error| {
            let byte = error.valid_up_to() + 1;
            Error::input(format!("byte {byte} of the line is not UTF-8")).hint("rows are UTF-8")
        })?;
        if self.is_text {
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

    // What the whole file is, where its first line is not a row by itself.
    fn misread(&mut self, line: &[u8]) -> Result<Option<Error>> {
        let Some(error) = str::from_utf8(line).ok().and_then(|text| parse(text).err()) else {
            return Ok(None);
        };
        let is_object = line.trim_ascii_start().starts_with(b"{");
        let has_cells = line.contains(&b',') || line.contains(&b'\t');
        let next = self.peek()?.trim_ascii_start().first().copied();
        let (what, hint) = match next {
            Some(b'"' | b'}') if is_object && error.is_eof() => (
                "the file is JSON over several lines",
                "write every row on a line of its own, as `jq -c` does, or all as one list",
            ),
            Some(next) if !is_object && has_cells && next != b'{' => (
                "the file is not JSON, and looks like CSV",
                "the name of such a file ends in .csv or .tsv",
            ),
            _ => return Ok(None),
        };
        Ok(Some(Error::input(what).hint(hint).at(self.path.display())))
    }
}

impl Source for JsonLines {
    fn next(&mut self) -> Result<Option<Record>> {
        let Some(raw) = self.next_raw()? else {
            return Ok(None);
        };
        if let (false, false, Raw::Line(line)) = (self.any, self.is_text, &raw)
            && let Some(error) = self.misread(line)?
        {
            return Err(error);
        }
        self.any = true;
        Ok(Some(self.record(raw)))
    }

    fn pass(&mut self, rows: usize) -> Result<usize> {
        let mut passed = 0;
        while passed < rows && self.next_raw()?.is_some() {
            self.any = true;
            passed += 1;
        }
        Ok(passed)
    }
}

/// A row as it stands in its file.
enum Raw {
    Line(Vec<u8>),
    Item(Item),
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
fn parse(text: &str) -> serde_json::Result<Value> {
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
