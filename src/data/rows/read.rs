//! Files of rows, plain or gzipped: JSON lines, one JSON list, or lines of text. A row knows where it
//! stands.
//!
//! Hides compression, line splitting, and the recognition of files that are something else.
//!
//! *Why*: a message about data must lead to the line. And the files that are wrong in practice are
//! rarely wrong JSON: they are a pointer left by Git LFS, a web page, an archive, UTF-16.

use super::expand;
use crate::error::{Error, Result};
use crate::io::untrusted::{self, Line};
use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};
use std::fmt::{self, Display};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A JSON list is read whole, so it may not be longer.
const LONGEST_LIST: usize = 256 << 20;

/// So many blank lines on end are no dataset, but a kilobyte of gzip may hold them.
const MOST_BLANK_LINES: usize = 1 << 20;

/// Where a row stands, as errors name it: `file:line`, or `file: item N` in a JSON list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: Arc<Path>,
    is_item: bool,
    number: usize,
}

impl Place {
    /// The 1-based number of its line, blank lines counted, or of its item.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let between = if self.is_item { ": item " } else { ":" };
        write!(f, "{}{between}{}", self.path.display(), self.number)
    }
}

/// One JSON object of a file. A line of a text file is an object with the column `prompt`.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where it stands.
    pub place: Place,
    columns: Map<String, Value>,
}

impl Row {
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

/// The records of a file, in order. Ends after the first error: the file cannot be read any further.
pub struct Rows {
    path: Arc<Path>,
    reader: Box<dyn BufRead>,
    gzipped: bool,
    is_text: bool,
    line: usize,
    // The items that are left of a JSON list, the next one's number first.
    list: Option<(usize, std::vec::IntoIter<Value>)>,
    any: bool,
    ended: bool,
}

/// Opens a file of rows. Whether it is gzipped, and whether it is JSON lines or one JSON list, shows
/// in its first bytes; a name that ends in `.txt` or `.txt.gz` makes every line a prompt. A file
/// without any row is an error.
pub fn rows(path: &Path) -> Result<Rows> {
    let file = untrusted::open(path).map_err(|error| match is_like_a_dataset(path) {
        true => error.hint(format!(
            "a dataset of the hub is written hub:{}:train, with the name of its split",
            path.display()
        )),
        false => error,
    })?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let start = reader.fill_buf().map_err(|error| Error::io(path, &error))?;
    let gzipped = start.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn BufRead> = if gzipped {
        Box::new(BufReader::with_capacity(
            1 << 16,
            MultiGzDecoder::new(reader),
        ))
    } else {
        Box::new(reader)
    };
    let name = path.to_string_lossy().to_lowercase();
    Ok(Rows {
        path: PathBuf::from(path).into(),
        reader,
        gzipped,
        is_text: name.trim_end_matches(".gz").ends_with(".txt"),
        line: 0,
        list: None,
        any: false,
        ended: false,
    })
}

// Whether a path that leads nowhere is written as the hub's names are: owner/name.
fn is_like_a_dataset(path: &Path) -> bool {
    let names = path.to_str().and_then(|path| path.split_once('/'));
    let plain = |(owner, name)| untrusted::is_plain(owner) && untrusted::is_plain(name);
    names.is_some_and(plain) && !expand::is_data(path) && !path.exists()
}

impl Rows {
    /// Passes over `rows` rows without parsing them; the number of rows there were.
    pub fn pass(&mut self, rows: usize) -> Result<usize> {
        let mut passed = 0;
        while passed < rows && self.next_raw()?.is_some() {
            passed += 1;
        }
        Ok(passed)
    }

    // `None` at the end of the file.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        self.line += 1;
        match untrusted::line(&mut self.reader).map_err(|error| self.unreadable(&error))? {
            Line::Whole(bytes) => Ok(Some(bytes)),
            Line::TooLong => Err(untrusted::too_long().at(self.place())),
            Line::End => Ok(None),
        }
    }

    fn unreadable(&self, error: &io::Error) -> Error {
        let damaged = matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::InvalidData
        );
        if self.gzipped && damaged {
            return Error::input("the gzip stream is damaged or cut off")
                .hint("fetch the file again")
                .at(self.place());
        }
        Error::io(&*self.path, error)
    }

    fn place(&self) -> Place {
        let item = self.list.as_ref().map(|(next, _)| next - 1);
        Place {
            path: self.path.clone(),
            is_item: item.is_some(),
            number: item.unwrap_or(self.line),
        }
    }

    /// The next row as it stands in the file.
    fn next_raw(&mut self) -> Result<Option<Raw>> {
        if self.list.is_none()
            && let Some(line) = self.next_filled_line()?
        {
            let is_list = !self.any && !self.is_text && line.trim_ascii_start().starts_with(b"[");
            if !is_list {
                self.any = true;
                return Ok(Some(Raw::Line(line)));
            }
            self.list = Some((1, self.items(line)?.into_iter()));
        }
        if let Some((next, items)) = &mut self.list
            && let Some(item) = items.next()
        {
            *next += 1;
            self.any = true;
            return Ok(Some(Raw::Item(item)));
        }
        if self.any {
            return Ok(None);
        }
        Err(Error::input("the file has no rows")
            .hint("a dataset is one JSON object per line, or one list of them")
            .at(self.path.display()))
    }

    // The next line that is not blank.
    fn next_filled_line(&mut self) -> Result<Option<Vec<u8>>> {
        let before = self.line;
        while let Some(mut bytes) = self.next_line()? {
            if self.line == 1 {
                if let Some((what, hint)) = something_else(&bytes, self.is_text) {
                    return Err(Error::input(what).hint(hint).at(self.path.display()));
                }
                // The byte order mark of UTF-8 says nothing.
                if bytes.starts_with(untrusted::BYTE_ORDER_MARK) {
                    bytes.drain(..untrusted::BYTE_ORDER_MARK.len());
                }
            }
            let blank = str::from_utf8(&bytes).is_ok_and(|text| text.trim().is_empty());
            if !blank {
                return Ok(Some(bytes));
            }
            if self.line - before > MOST_BLANK_LINES {
                return Err(
                    Error::input(format!("{MOST_BLANK_LINES} blank lines on end"))
                        .hint("every row stands on a line of its own")
                        .at(self.place()),
                );
            }
        }
        Ok(None)
    }

    // The items of a file that is one JSON list, whose first line that is not blank is `start`.
    fn items(&mut self, mut start: Vec<u8>) -> Result<Vec<Value>> {
        let before = self.line - 1;
        start.push(b'\n');
        (&mut self.reader)
            .take(LONGEST_LIST as u64 + 1)
            .read_to_end(&mut start)
            .map_err(|error| self.unreadable(&error))?;
        if start.len() > LONGEST_LIST {
            return Err(Error::input("the JSON list is longer than 256 MiB")
                .hint("write one object per line instead")
                .at(self.path.display()));
        }
        let text = str::from_utf8(&start).map_err(|error| {
            let lines = start[..error.valid_up_to()].split(|byte| *byte == b'\n');
            self.line = before + lines.count();
            Error::input("the line is not UTF-8")
                .hint("rows are UTF-8")
                .at(self.place())
        })?;
        match untrusted::parse(text) {
            Ok(Value::Array(items)) => Ok(items),
            // It begins with `[`.
            Ok(_) => Ok(Vec::new()),
            Err(error) => {
                self.line = before + error.line();
                Err(Error::input(not_json(&error))
                    .hint("a file that begins with `[` is one JSON list of objects")
                    .at(self.place()))
            }
        }
    }

    fn row(&self, raw: Raw) -> Result<Row> {
        let place = self.place();
        let columns = match raw {
            Raw::Item(Value::Object(columns)) => columns,
            Raw::Item(_) => {
                return Err(Error::input("the item is JSON, but not an object")
                    .hint("every item is one JSON object with a row's columns")
                    .at(place));
            }
            Raw::Line(bytes) => {
                let text = str::from_utf8(&bytes).map_err(|error| {
                    let byte = error.valid_up_to() + 1;
                    Error::input(format!("byte {byte} of the line is not UTF-8"))
                        .hint("rows are UTF-8")
                        .at(&place)
                })?;
                match self.is_text {
                    true => {
                        let prompt = text.trim_end_matches('\r').into();
                        Map::from_iter([("prompt".to_owned(), prompt)])
                    }
                    false => object(text).map_err(|error| error.at(&place))?,
                }
            }
        };
        Ok(Row { place, columns })
    }
}

/// A row as it stands in its file.
enum Raw {
    Line(Vec<u8>),
    Item(Value),
}

fn object(text: &str) -> Result<Map<String, Value>> {
    let what = match untrusted::parse(text) {
        Ok(Value::Object(columns)) => return Ok(columns),
        Ok(Value::Array(_)) => "the line is a JSON list, not an object".to_owned(),
        Ok(_) => "the line is JSON, but not an object".to_owned(),
        Err(error) => not_json(&error),
    };
    Err(Error::input(what).hint("every line is one JSON object with a row's columns"))
}

// Without its own "at line 1", which would be read as a line of the file.
fn not_json(error: &serde_json::Error) -> String {
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default();
    format!("not JSON: {what} at column {}", error.column())
}

impl Iterator for Rows {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = match self.next_raw() {
            Ok(raw) => raw.map(|raw| {
                Ok(Record {
                    place: self.place(),
                    row: self.row(raw),
                })
            }),
            Err(error) => Some(Err(error)),
        };
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

// What a file is whose first line cannot belong to JSON lines, and what to do about it.
fn something_else(line: &[u8], is_text: bool) -> Option<(&'static str, &'static str)> {
    let unpack = "expo reads .jsonl, .json and .txt files, plain or gzipped";
    let kinds: [(&[u8], &str); 3] = [
        (b"PAR1", "the file is parquet"),
        (b"PK\x03\x04", "the file is a zip archive"),
        (b"\x28\xb5\x2f\xfd", "the file is compressed with zstd"),
    ];
    let kind = kinds.iter().find(|(start, _)| line.starts_with(start));
    kind.map(|(_, what)| (*what, unpack))
        .or_else(|| untrusted::something_else(line, is_text))
}
