//! Files of rows, whatever they are in: JSON lines, one JSON list, lines of text, CSV, parquet, Arrow.
//!
//! Hides which of these a file is: it shows in its first bytes, and where they do not say in its name.
//!
//! *Why*: people have their rows in all of these, and nobody behind this should have to know.

use super::arrow::{self, Arrow};
use super::columnar::Columnar;
use super::compressed::{self, decompress};
use super::csv::Csv;
use super::expand;
use super::json_lines::JsonLines;
use super::parquet::{self, Parquet};
use super::recognize::something_else;
use super::row::{Source, Unit};
use crate::error::{Error, Result};
use crate::io::untrusted;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

pub use super::row::{Place, Record, Row};

/// The records of a file, in order. Ends after the first error: the file cannot be read any further.
pub struct Rows {
    source: Box<dyn Source>,
    ended: bool,
}

/// Opens a file of rows. What it is shows in its first bytes, compressed or not; a name that ends in
/// `.csv` or `.tsv` makes it a table, `.txt` makes every line a prompt. A file without any row is an
/// error.
pub fn rows(path: &Path) -> Result<Rows> {
    let file = untrusted::open(path).map_err(|error| match dataset(path) {
        Some(Ok(name)) => error.hint(format!(
            "a dataset of the hub is written hub:{name}:train, with the name of its split"
        )),
        Some(Err(())) => error.hint("rows are not read from a URL; download the file first"),
        None => error,
    })?;
    Ok(Rows {
        source: source(path, file)?,
        ended: false,
    })
}

fn source(path: &Path, file: File) -> Result<Box<dyn Source>> {
    let io = |error: std::io::Error| Error::io(path, &error);
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let start = reader.fill_buf().map_err(io)?;
    let shared: Arc<Path> = path.into();
    let is = |magic: &[u8]| start.starts_with(magic);
    let (is_parquet, is_encrypted) = (is(parquet::MAGIC), is(parquet::ENCRYPTED));
    let is_arrow = is(arrow::MAGIC) || is(arrow::CONTINUATION);
    if is_encrypted {
        return Err(Error::input("the parquet file is encrypted").at(path.display()));
    }
    if is_parquet || is_arrow {
        reader.rewind().map_err(io)?;
        let file = reader.into_inner();
        return Ok(match is_parquet {
            true => Box::new(Columnar::new(shared.clone(), Parquet::open(shared, file)?)),
            false => Box::new(Columnar::new(shared.clone(), Arrow::open(shared, file)?)),
        });
    }
    let mut plain = decompress(reader).map_err(io)?;
    let kind = expand::kind(path);
    let compression = plain.compression;
    let start = plain.reader.fill_buf().map_err(|error| {
        let first = Place::new(&shared, Unit::Line, 1);
        compressed::damaged(compression, &error).map_or_else(|| io(error), |error| error.at(first))
    })?;
    let line = start
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let ending = path.extension().and_then(|ending| ending.to_str());
    let is_short = (1..4).contains(&start.len()) && compression.is_none();
    if is_short && matches!(ending, Some("gz" | "zst")) {
        return Err(Error::input("the file is cut off")
            .hint("fetch it again")
            .at(path.display()));
    }
    if let Some(kind @ ("parquet" | "Arrow")) = kind {
        let (what, hint) = something_else(line, false).map_or_else(
            || {
                (
                    format!("the file is not {kind}, whatever its name says"),
                    "fetch it again",
                )
            },
            |(what, hint)| (what.to_owned(), hint),
        );
        return Err(Error::input(what).hint(hint).at(path.display()));
    }
    let first = start.trim_ascii_start().first();
    let is_json = matches!(first, Some(b'{' | b'['));
    let is_table = matches!(kind, Some("CSV" | "TSV")) && !is_json;
    if is_table && let Some((what, hint)) = something_else(line, false) {
        return Err(Error::input(what).hint(hint).at(path.display()));
    }
    Ok(match is_table {
        true => Box::new(Csv::open(shared, plain, kind == Some("TSV"))?),
        false => Box::new(JsonLines::new(shared, plain, kind == Some("text"))),
    })
}

/// The name of the dataset of the hub that a path which leads nowhere stands for, also as the address of
/// its page; no name where it is another address.
fn dataset(path: &Path) -> Option<std::result::Result<String, ()>> {
    let text = path.to_str()?;
    let address = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let page = address
        .unwrap_or(text)
        .strip_prefix("huggingface.co/datasets/");
    match (page, address) {
        (Some(page), _) => {
            let parts: Vec<&str> = page.split('/').take(2).collect();
            Some(Ok(parts.join("/")))
        }
        (None, Some(_)) => Some(Err(())),
        (None, None) => is_like_a_dataset(path).then(|| Ok(text.to_owned())),
    }
}

/// Whether a path that leads nowhere is written as the hub's names are: owner/name.
fn is_like_a_dataset(path: &Path) -> bool {
    let names = path.to_str().and_then(|path| path.split_once('/'));
    let plain = |(owner, name)| untrusted::is_plain(owner) && untrusted::is_plain(name);
    names.is_some_and(plain) && expand::kind(path).is_none() && !path.exists()
}

impl Rows {
    /// Passes over `rows` rows without parsing them; the number of rows there were.
    pub fn pass(&mut self, rows: usize) -> Result<usize> {
        self.source.pass(rows)
    }
}

impl Iterator for Rows {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.source.next().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}
