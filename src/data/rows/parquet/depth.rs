//! Bounds the nesting depth of a parquet file's columns before they are read.
//!
//! *Why*: the crate that reads parquet calls itself for every level, and a few megabytes of footer
//! can have more levels than a stack holds, which would end the program. So the list of the schema is
//! looked at first, in the compact form of Thrift that footers are in.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Real files have a dozen.
const DEEPEST: usize = 100;

/// Behind the footer: its length and the magic bytes.
const TRAILER: u64 = 8;

/// Refuses a file whose columns are nested too deep, or whose footer is damaged up to its schema.
pub(super) fn check(file: &File) -> Result<()> {
    let footer = footer(file).ok_or_else(damaged)?;
    let mut footer = Thrift(&footer);
    let mut field = 0;
    while let Some(kind) = footer.field(&mut field).ok_or_else(damaged)? {
        if (field, kind) == (SCHEMA, LIST) {
            return match footer.levels().ok_or_else(damaged)? <= DEEPEST {
                true => Ok(()),
                false => Err(Error::input(format!(
                    "the columns are nested more than {DEEPEST} deep"
                ))),
            };
        }
        footer.skip(kind, 0).ok_or_else(damaged)?;
    }
    Err(damaged())
}

fn damaged() -> Error {
    Error::input("cannot be read as parquet: its footer is incomplete").hint(super::FETCH)
}

fn footer(mut file: &File) -> Option<Vec<u8>> {
    let bytes = file.metadata().ok()?.len();
    let trailer = bytes.checked_sub(TRAILER)?;
    file.seek(SeekFrom::Start(trailer)).ok()?;
    let mut length = [0; 4];
    file.read_exact(&mut length).ok()?;
    let length = u64::from(u32::from_le_bytes(length));
    file.seek(SeekFrom::Start(trailer.checked_sub(length)?))
        .ok()?;
    let mut footer = Vec::new();
    file.take(length).read_to_end(&mut footer).ok()?;
    Some(footer)
}

/// Fields of a file's metadata and of an element of its schema, and kinds of values.
const SCHEMA: i64 = 2;
const CHILDREN: i64 = 5;
const I32: u8 = 5;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// What is left of a text in the compact protocol. Every method is `None` where it ends too early.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The kind of the next field of a structure, whose number follows; `None` inside at its end.
    fn field(&mut self, number: &mut i64) -> Option<Option<u8>> {
        let header = self.byte()?;
        if header == 0 {
            return Some(None);
        }
        *number = match i64::from(header >> 4) {
            0 => self.zigzag()?,
            more => number.checked_add(more)?,
        };
        Some(Some(header & 15))
    }

    // The kind and number of the items of a list.
    fn list(&mut self) -> Option<(u8, u64)> {
        let header = self.byte()?;
        let items = match header >> 4 {
            15 => self.varint()?,
            items => u64::from(items),
        };
        Some((header & 15, items))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        const DEEPEST: usize = 32;
        if depth > DEEPEST {
            return None;
        }
        match kind {
            // The value of a boolean field is its kind.
            1 | 2 => Some(()),
            3 => self.pass(1),
            4..=6 => self.varint().map(drop),
            7 => self.pass(8),
            8 => {
                let bytes = self.varint()?;
                self.pass(bytes)
            }
            9 | 10 => {
                let (kind, items) = self.list()?;
                (0..items).try_for_each(|_| match kind {
                    1 | 2 => self.pass(1),
                    kind => self.skip(kind, depth + 1),
                })
            }
            STRUCT => {
                let mut number = 0;
                while let Some(kind) = self.field(&mut number)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// The levels of a schema: a list of elements, each before its children.
    fn levels(&mut self) -> Option<usize> {
        let (kind, elements) = self.list()?;
        let (mut deepest, mut open) = (0, Vec::new());
        for _ in 0..elements {
            if kind != STRUCT {
                return None;
            }
            let (mut number, mut children) = (0, 0);
            while let Some(kind) = self.field(&mut number)? {
                match (number, kind) {
                    (CHILDREN, I32) => children = self.zigzag()?,
                    _ => self.skip(kind, 0)?,
                }
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            open.push(children);
            deepest = deepest.max(open.len());
            while open.last().is_some_and(|left| *left <= 0) {
                open.pop();
            }
        }
        Some(deepest)
    }
}
