//! Tables of text: CSV, TSV, and what spreadsheets write with semicolons. The first line names the
//! columns.
//!
//! Hides the delimiter, quotes and line ends. A cell is a string, an empty one null.
//!
//! *Why*: a record is cut out of the lines before it is taken apart, so that every row knows its line,
//! a quote that is never closed cannot swallow the file, and a file that ends in one is seen to be cut.

use super::row::{Place, Record, Row, Source, Unit};
use crate::error::{Error, Result};
use crate::io::untrusted::{self, LONGEST_LINE, Line};
use ::csv::{ByteRecord, ReaderBuilder};
use serde_json::{Map, Value};
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use super::compressed;

pub(super) struct Csv {
    path: Arc<Path>,
    reader: Box<dyn BufRead>,
    compression: Option<&'static str>,
    delimiter: u8,
    fields: ::csv::Reader<Feed>,
    header: Vec<String>,
    // The lines that were read, and the first of the record that was read last.
    lines: usize,
    line: usize,
    any: bool,
}

/// One record at a time for a parser that reads on.
#[derive(Default)]
struct Feed {
    record: Vec<u8>,
    given: usize,
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&self.record[self.given..]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

impl Csv {
    pub(super) fn open(path: Arc<Path>, plain: compressed::Plain, is_tsv: bool) -> Result<Self> {
        let compressed::Plain {
            mut reader,
            compression,
        } = plain;
        let start = reader
            .fill_buf()
            .map_err(|error| Error::io(&path, &error))?;
        let bom = start.starts_with(untrusted::BYTE_ORDER_MARK);
        let first = start
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let delimiters: &[u8] = if is_tsv { b"\t" } else { b",\t;" };
        let delimiter = delimiters
            .iter()
            .find(|delimiter| first.contains(delimiter));
        let delimiter = *delimiter.unwrap_or(&delimiters[0]);
        if bom {
            reader.consume(untrusted::BYTE_ORDER_MARK.len());
        }
        let fields = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .from_reader(Feed::default());
        let mut csv = Self {
            path,
            reader,
            compression,
            delimiter,
            fields,
            header: Vec::new(),
            lines: 0,
            line: 0,
            any: false,
        };
        let header = csv.record()?.ok_or_else(|| csv.no_rows())?;
        csv.header = csv.names(&header)?;
        Ok(csv)
    }

    fn no_rows(&self) -> Error {
        Error::input("the file has no rows")
            .hint("a table has a line of column names and a line for each row")
            .at(self.path.display())
    }

    fn names(&self, header: &ByteRecord) -> Result<Vec<String>> {
        let place = self.place();
        let mut names: Vec<String> = Vec::new();
        for cell in header {
            let name = str::from_utf8(cell)
                .map_err(|_| Error::input("the line of column names is not UTF-8").at(&place))?;
            if names.iter().any(|other| other == name) {
                return Err(Error::input(format!("there are two columns `{name}`")).at(&place));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    fn place(&self) -> Place {
        Place::new(&self.path, Unit::Line, self.line)
    }

    // Reads the lines of the next record.
    fn feed(&mut self) -> Result<bool> {
        let feed = self.fields.get_mut();
        feed.record.clear();
        feed.given = 0;
        let mut quote = Quote::default();
        self.line = self.lines + 1;
        loop {
            let read = untrusted::line(&mut self.reader).map_err(|error| {
                let damaged = compressed::damaged(self.compression, &error);
                let at = Place::new(&self.path, Unit::Line, self.lines + 1);
                damaged.map_or_else(|| Error::io(&self.path, &error), |error| error.at(at))
            })?;
            self.lines += 1;
            let feed = self.fields.get_mut();
            match read {
                Line::Whole(line) => {
                    let blank = line.is_empty() || line == b"\r";
                    if blank && !quote.open {
                        self.line = self.lines + 1;
                        continue;
                    }
                    quote.pass(&line, self.delimiter);
                    feed.record.extend_from_slice(&line);
                    feed.record.push(b'\n');
                }
                Line::TooLong => return Err(untrusted::too_long().at(self.place())),
                Line::End if quote.open => {
                    return Err(Error::input("the file ends within a quoted cell")
                        .hint("close the quote, or fetch the file again")
                        .at(self.place()));
                }
                Line::End => return Ok(false),
            }
            if feed.record.len() > LONGEST_LINE {
                return Err(Error::input("the row is longer than 64 MiB")
                    .hint("is a quote left open?")
                    .at(self.place()));
            }
            if !quote.open {
                return Ok(true);
            }
        }
    }

    fn record(&mut self) -> Result<Option<ByteRecord>> {
        if !self.feed()? {
            return Ok(None);
        }
        let mut record = ByteRecord::new();
        match self.fields.read_byte_record(&mut record) {
            Ok(true) => Ok(Some(record)),
            _ => Err(Error::input("the line is not a table row").at(self.place())),
        }
    }

    fn row(&self, record: &ByteRecord) -> Result<Row> {
        let place = self.place();
        let (cells, columns) = (record.len(), self.header.len());
        if cells != columns {
            return Err(Error::input(format!(
                "the row has {cells} cells, the first line of the file {columns}"
            ))
            .hint("a cell with a delimiter or a line end stands in quotes")
            .at(place));
        }
        let cell = |(name, cell): (&String, &[u8])| {
            let text = str::from_utf8(cell).map_err(|_| {
                Error::input(format!("column `{name}` is not UTF-8"))
                    .hint("rows are UTF-8")
                    .at(&place)
            })?;
            let value = if text.is_empty() {
                Value::Null
            } else {
                text.into()
            };
            Ok((name.clone(), value))
        };
        let cells = self.header.iter().zip(record).map(cell);
        let columns = cells.collect::<Result<Map<String, Value>>>()?;
        Ok(Row::new(place, columns))
    }
}

impl Source for Csv {
    fn next(&mut self) -> Result<Option<Record>> {
        let Some(record) = self.record()? else {
            return match self.any {
                true => Ok(None),
                false => Err(self.no_rows()),
            };
        };
        self.any = true;
        Ok(Some(Record {
            place: self.place(),
            row: self.row(&record),
        }))
    }

    fn pass(&mut self, rows: usize) -> Result<usize> {
        let mut passed = 0;
        while passed < rows && self.feed()? {
            passed += 1;
            self.any = true;
        }
        Ok(passed)
    }
}

/// Whether a record continues after a line: a cell that begins with a quote ends with the next one
/// that stands alone.
#[derive(Default)]
struct Quote {
    open: bool,
}

impl Quote {
    fn pass(&mut self, line: &[u8], delimiter: u8) {
        let mut start = !self.open;
        let mut bytes = line.iter().peekable();
        while let Some(byte) = bytes.next() {
            match (*byte, self.open) {
                (b'"', true) => {
                    if bytes.peek() == Some(&&b'"') {
                        bytes.next();
                    } else {
                        self.open = false;
                    }
                }
                (b'"', false) if start => self.open = true,
                _ => {}
            }
            start = !self.open && *byte == delimiter;
        }
    }
}
