//! The items of a file that is one JSON list.
//!
//! Hides where an item ends: at the comma or bracket that is in no string and no bracket of its own.
//!
//! *Why*: an item is cut out and parsed by itself, so a list needs no more memory than its longest.

use crate::error::Error;
use crate::io::untrusted::LONGEST_LINE;
use std::io::{self, BufRead};

/// The text of an item, its number from 1, and where it begins, from 1.
pub(super) struct Item {
    pub text: Vec<u8>,
    pub number: usize,
    pub line: usize,
    pub column: usize,
}

/// An error of the list, or of the stream at this line.
pub(super) type Failure = std::result::Result<Error, (usize, io::Error)>;

pub(super) struct Items {
    reader: Box<dyn BufRead>,
    line: usize,
    column: usize,
    number: usize,
    ended: bool,
}

impl Items {
    /// The items of what stands at the opening bracket, in this line.
    pub(super) fn new(reader: Box<dyn BufRead>, line: usize) -> Self {
        Self {
            reader,
            line,
            column: 1,
            number: 0,
            ended: false,
        }
    }

    fn wrong(&self, what: &str) -> Failure {
        let what = format!("not JSON: {what} at column {}", self.column);
        Ok(Error::input(what)
            .hint("a file that begins with `[` is one JSON list of objects")
            .at_line(self.line))
    }

    fn peek(&mut self) -> std::result::Result<Option<u8>, Failure> {
        let line = self.line;
        let bytes = self.reader.fill_buf().map_err(|error| Err((line, error)))?;
        Ok(bytes.first().copied())
    }

    fn step(&mut self, byte: u8) {
        self.reader.consume(1);
        match byte {
            b'\n' => (self.line, self.column) = (self.line + 1, 1),
            _ => self.column += 1,
        }
    }

    fn pass_blank(&mut self) -> std::result::Result<Option<u8>, Failure> {
        while let Some(byte) = self.peek()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some(byte));
            }
            self.step(byte);
        }
        Ok(None)
    }

    /// The next item; `None` at the end of the list, behind which nothing else stands.
    pub(super) fn next(&mut self) -> std::result::Result<Option<Item>, Failure> {
        if self.ended {
            return Ok(None);
        }
        // The bracket before the first item, the comma or bracket behind each.
        let before = self.pass_blank()?;
        match before {
            Some(b']') if self.number > 0 => return self.end(),
            Some(byte @ (b'[' | b',')) => self.step(byte),
            Some(_) => return Err(self.wrong("expected `,` or `]`")),
            None => return Err(self.wrong("EOF while parsing a list")),
        }
        if self.pass_blank()? == Some(b']') {
            return match self.number {
                0 => self.end(),
                _ => Err(self.wrong("trailing comma")),
            };
        }
        self.number += 1;
        let (line, column) = (self.line, self.column);
        let text = self.text()?;
        Ok(Some(Item {
            text,
            number: self.number,
            line,
            column,
        }))
    }

    fn end(&mut self) -> std::result::Result<Option<Item>, Failure> {
        self.step(b']');
        self.ended = true;
        match self.pass_blank()? {
            None => Ok(None),
            Some(_) => Err(self.wrong("trailing characters")),
        }
    }

    fn text(&mut self) -> std::result::Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        loop {
            let line = self.line;
            let bytes = self.reader.fill_buf().map_err(|error| Err((line, error)))?;
            if bytes.is_empty() {
                return Err(self.wrong("EOF while parsing a list"));
            }
            let mut taken = bytes.len();
            let mut is_whole = false;
            for (at, byte) in bytes.iter().enumerate() {
                match *byte {
                    b'"' if !escaped => in_string = !in_string,
                    b'[' | b'{' if !in_string => depth += 1,
                    b',' | b']' if !in_string && depth == 0 => {
                        (taken, is_whole) = (at, true);
                        break;
                    }
                    b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                    _ => {}
                }
                escaped = in_string && *byte == b'\\' && !escaped;
                match *byte {
                    b'\n' => (self.line, self.column) = (self.line + 1, 1),
                    _ => self.column += 1,
                }
            }
            text.extend_from_slice(&bytes[..taken]);
            self.reader.consume(taken);
            if text.len() > LONGEST_LINE {
                let what = format!("item {} is longer than 64 MiB", self.number);
                return Err(Ok(
                    Error::input(what).hint("write one object per line instead")
                ));
            }
            if is_whole {
                return Ok(text);
            }
        }
    }
}
