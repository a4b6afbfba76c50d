//! Files of JSON lines, plain or gzipped, as rows that know where they stand.
//!
//! Hides compression, line splitting, and the recognition of files that are something else.
//!
//! *Why*: a message about data must lead to the line. And the files that are wrong in practice are
//! rarely wrong JSON: they are a pointer left by Git LFS, a web page, an archive, UTF-16.

use crate::error::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longer lines are refused: a file without line ends must not fill the memory.
const LONGEST_LINE: usize = 64 << 20;

/// One JSON object of a file.
#[derive(Debug, Clone)]
pub struct Row {
    path: Arc<Path>,
    /// The 1-based number of its line; blank lines count.
    pub line: usize,
    columns: Map<String, Value>,
}

impl Row {
    /// `path:line`, as errors name it.
    pub fn place(&self) -> String {
        place(&self.path, self.line)
    }

    /// A column; null is the same as none.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.columns.get(column).filter(|value| !value.is_null())
    }

    /// A column that must be there.
    pub fn need(&self, column: &str) -> Result<&Value> {
        self.get(column).ok_or_else(|| {
            let names: Vec<String> = self
                .columns
                .keys()
                .map(|name| format!("`{name}`"))
                .collect();
            let has = match names.as_slice() {
                [] => "no column at all".to_owned(),
                names => format!("no column `{column}`, only {}", names.join(", ")),
            };
            Error::input(format!("the row has {has}")).at(self.place())
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
        Error::input(format!("column `{column}` is {found}, not {valid}")).at(self.place())
    }
}

fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}

/// The rows of a file, in order. Ends after the first error.
pub struct Rows {
    path: Arc<Path>,
    reader: Box<dyn BufRead>,
    gzipped: bool,
    line: usize,
    any: bool,
    ended: bool,
}

/// Opens a `.jsonl` or `.jsonl.gz` file; which of the two is read from its first bytes. A file
/// without any row is an error.
pub fn rows(path: &Path) -> Result<Rows> {
    let file = File::open(path).map_err(|error| Error::io(path, &error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::input("a folder, not a file")
            .hint("name a .jsonl or .jsonl.gz file in it")
            .at(path.display()));
    }
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
    Ok(Rows {
        path: PathBuf::from(path).into(),
        reader,
        gzipped,
        line: 0,
        any: false,
        ended: false,
    })
}

impl Rows {
    // `None` at the end of the file.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.line += 1;
        let limit = LONGEST_LINE as u64 + 1;
        let read = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| self.unreadable(&error))?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.len() > LONGEST_LINE {
            return Err(Error::input("the line is longer than 64 MiB")
                .hint("every row stands on a line of its own")
                .at(self.place()));
        }
        Ok((read > 0).then_some(bytes))
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

    fn place(&self) -> String {
        place(&self.path, self.line)
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        while let Some(bytes) = self.next_line()? {
            let mut bytes = bytes.as_slice();
            if self.line == 1 {
                if let Some((what, hint)) = something_else(bytes) {
                    return Err(Error::input(what).hint(hint).at(self.path.display()));
                }
                // The byte order mark of UTF-8 says nothing.
                bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            }
            let text = std::str::from_utf8(bytes).map_err(|error| {
                let byte = error.valid_up_to() + 1;
                Error::input(format!("byte {byte} of the line is not UTF-8"))
                    .hint("JSON lines are UTF-8")
                    .at(self.place())
            })?;
            if text.trim().is_empty() {
                continue;
            }
            let columns = self.object(text)?;
            self.any = true;
            return Ok(Some(Row {
                path: self.path.clone(),
                line: self.line,
                columns,
            }));
        }
        if self.any {
            return Ok(None);
        }
        Err(Error::input("the file has no rows")
            .hint("a dataset is one JSON object per line")
            .at(self.path.display()))
    }

    fn object(&self, text: &str) -> Result<Map<String, Value>> {
        let hint = "every line is one JSON object with a row's columns";
        let what = match serde_json::from_str(text) {
            Ok(Value::Object(columns)) => return Ok(columns),
            Ok(Value::Array(_)) => "the line is a JSON list, not an object".to_owned(),
            Ok(_) => "the line is JSON, but not an object".to_owned(),
            Err(_) if self.line == 1 && text.trim() == "[" => {
                "the file is one JSON list, not JSON lines".to_owned()
            }
            Err(error) => {
                // Its own "at line 1" would be read as a line of the file.
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                format!("not JSON: {what} at column {}", error.column())
            }
        };
        Err(Error::input(what).hint(hint).at(self.place()))
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.next_row().transpose();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

// What a file is whose first line cannot belong to JSON lines, and what to do about it.
fn something_else(line: &[u8]) -> Option<(&'static str, &'static str)> {
    let convert = "convert it to UTF-8";
    let unpack = "expo reads .jsonl and .jsonl.gz files";
    if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
        return Some(("the file is UTF-16, not UTF-8", convert));
    }
    if line.starts_with(b"PAR1") {
        return Some(("the file is parquet", unpack));
    }
    if line.starts_with(b"PK\x03\x04") {
        return Some(("the file is a zip archive", unpack));
    }
    if line.starts_with(b"\x28\xb5\x2f\xfd") {
        return Some(("the file is compressed with zstd", unpack));
    }
    if line.contains(&0) {
        return Some(("the first line has NUL bytes: UTF-16 or binary", convert));
    }
    if line.starts_with(b"version https://git-lfs") {
        return Some((
            "the file is a pointer of Git LFS, not the data itself",
            "run `git lfs pull` where it comes from",
        ));
    }
    if line.trim_ascii_start().starts_with(b"<") {
        return Some((
            "the file is a web page, not JSON lines",
            "fetch the raw file instead of the page about it",
        ));
    }
    None
}
