//! JSON lines, one JSON list, or lines of text.
//!
//! Hides line splitting, the items of a list, that rows are parsed some at a time on all cores, and the
//! recognition of files that are something else.
//!
//! *Why*: the files that are wrong in practice are rarely wrong JSON: they are a pointer left by Git
//! LFS, a web page, an archive, UTF-16. And what Python writes is nearly JSON: NaN, half a character.

use super::compressed;
use super::json_list::Items;
use super::json_row::{Raw, parse, record};
use super::recognize::something_else;
use super::row::{Place, Record, Source, Unit};
use crate::error::{Error, Result};
use crate::io::untrusted::{self, LONGEST_LINE, Line};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;

/// So many blank lines in a row are not a dataset, but a kilobyte of gzip may hold them.
const MOST_BLANK_LINES: usize = 1 << 20;

/// The most rows that are parsed together, and the bytes that are enough for it. Whoever looks at the first
/// row alone waits for few: there is one at first, and twice as many each time.
const ROWS_TOGETHER: usize = 1 << 10;
const BYTES_TOGETHER: usize = 1 << 20;

/// Rows that one thread parses at least.
const ROWS_APART: usize = 16;

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
    // What was parsed and not yet asked for, and the error behind it.
    parsed: VecDeque<Record>,
    failed: Option<Error>,
    // How many rows are parsed together next.
    together: usize,
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
            parsed: VecDeque::new(),
            failed: None,
            together: 1,
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
            None => self
                .next_filled_line()?
                .map(|line| Raw::Line(self.line, line)),
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

    /// The next rows, at least one unless it is the end; `failed` has what ends them.
    fn parse_ahead(&mut self) -> Result<()> {
        let mut raws = Vec::new();
        let mut bytes = 0;
        while raws.len() < self.together && bytes < BYTES_TOGETHER {
            match self.next_raw() {
                Ok(Some(raw)) => {
                    bytes += raw.bytes().len();
                    raws.push(raw);
                    self.any = true;
                }
                Ok(None) => break,
                Err(error) if raws.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        self.together = (2 * self.together).min(ROWS_TOGETHER);
        let (path, is_text) = (&self.path, self.is_text);
        let parse = |raw: &Raw| record(raw, path, is_text);
        let parsed: Vec<Record> = match raws.len() < 2 * ROWS_APART {
            true => raws.iter().map(parse).collect(),
            false => raws
                .par_iter()
                .with_min_len(ROWS_APART)
                .map(parse)
                .collect(),
        };
        self.parsed = parsed.into();
        Ok(())
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
        if let Some(record) = self.parsed.pop_front() {
            return Ok(Some(record));
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.any {
            self.parse_ahead()?;
            return Ok(self.parsed.pop_front());
        }
        let Some(raw) = self.next_raw()? else {
            return Ok(None);
        };
        if let (false, Raw::Line(_, line)) = (self.is_text, &raw)
            && let Some(error) = self.misread(line)?
        {
            return Err(error);
        }
        self.any = true;
        Ok(Some(record(&raw, &self.path, self.is_text)))
    }

    fn pass(&mut self, rows: usize) -> Result<usize> {
        let ahead = rows.min(self.parsed.len());
        self.parsed.drain(..ahead);
        let mut passed = ahead;
        while passed < rows {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.next_raw()?.is_none() {
                break;
            }
            self.any = true;
            passed += 1;
        }
        Ok(passed)
    }
}
