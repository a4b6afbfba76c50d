//! The files of a dataset: one or several, each whole or a slice of its rows.
//!
//! Hides how a slice is written (as in Hugging Face: `rows.jsonl[:1000]`, `[90%:]`, `[100:200]`), that
//! a part may be several files of a directory or a pattern, and how all their rows become one sequence.
//!
//! *Why*: a row's number is its place in the files one after the other, each whole. So a row keeps
//! its number whatever slice it is read through, and no two rows of a dataset share one.

mod written;

use super::expand::{expand, on_hub};
use super::mixture::{Choice, Weight, Weighted};
use super::read::{self, Place, Record, Row, Rows};
use crate::error::{Error, Result};
use crate::io::hub::{DatasetFiles, DatasetName, Download, HubSettings, resolve_dataset_with};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use written::{Written, WrittenPart};

/// One or several files of rows: a string, a table of `path` and `weight`, or a list of them in a
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Files {
    parts: Vec<Part>,
    is_list: bool,
}

/// What one name stands for, one file or several, or a slice of their rows one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    name: PathBuf,
    slice: Option<Slice>,
    weight: Weight,
}

/// `[from:to]`; a bound that is left out is the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slice {
    from: Option<Bound>,
    to: Option<Bound>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Row(usize),
    Percent(usize),
}

impl Files {
    /// Whether there may be several of them, so that a line number alone does not name a row.
    pub fn several(&self) -> bool {
        self.parts.len() > 1 || self.names().any(|name| !name.is_file())
    }

    /// These files, and then others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.parts.extend(others.parts);
        self.is_list = true;
        self
    }

    /// The names as they are written, without slices, in order.
    pub fn names(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.name.as_path())
    }

    /// The paths of all files, in order: what a directory or a pattern stands for in its place. A name
    /// that stands for no file is itself.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.names()
            .flat_map(|name| expand(name).unwrap_or_else(|_| vec![name.to_owned()]))
    }

    /// Downloads the datasets on the hub that are not on disk; what each of them is. `progress` is told
    /// how far each download is. Rows are found without it, silently.
    ///
    /// # Errors
    /// As of [`resolve_dataset_with`].
    pub fn fetch(
        &self,
        progress: &mut dyn FnMut(Download<'_>),
    ) -> Result<Vec<(DatasetName, DatasetFiles)>> {
        let settings = HubSettings::from_env();
        let fetch = |name: DatasetName| {
            let files = resolve_dataset_with(&name, &settings, progress)?;
            Ok((name, files))
        };
        let names = self.names().filter_map(on_hub).flatten();
        names.map(fetch).collect()
    }

    /// The rows of all files in order, each with its number from 0 in the files one after the other.
    /// Ends after the first error, which may be that of a row.
    pub fn rows(&self) -> impl Iterator<Item = Result<(usize, Row)>> + '_ {
        let mut failed = false;
        self.records().map_while(move |record| {
            let row = record.and_then(|(number, record)| Ok((number, record.row?)));
            (!std::mem::replace(&mut failed, row.is_err())).then_some(row)
        })
    }

    /// As [`rows`](Self::rows), where a row that is no JSON object does not end them. Rows outside a
    /// slice are counted, not parsed. Ends after the first file that cannot be read.
    pub fn records(&self) -> impl Iterator<Item = Result<(usize, Record)>> + '_ {
        let records = self.all(None);
        records.map(|weighted| weighted.map(|weighted| (weighted.number, weighted.record)))
    }

    /// As [`records`](Self::records), each with how often it is in a dataset of this seed. A part whose
    /// weight has a fraction is read twice: its rows are counted first.
    pub fn weighted(&self, seed: u64) -> impl Iterator<Item = Result<Weighted>> + '_ {
        self.all(Some(seed))
    }

    /// Whether a weight is another than 1.
    pub fn is_weighted(&self) -> bool {
        self.parts.iter().any(|part| !part.weight.is_one())
    }

    /// Each name with its slice, and its weight.
    pub fn weights(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        self.parts
            .iter()
            .map(|part| (part.to_string(), part.weight.into()))
    }

    // Without a seed every row is there once.
    fn all(&self, seed: Option<u64>) -> impl Iterator<Item = Result<Weighted>> + '_ {
        let mut parts = self.parts.iter().enumerate();
        let mut open: Option<(usize, Option<Choice>, Open)> = None;
        let mut before = 0;
        let mut ended = false;
        std::iter::from_fn(move || {
            while !ended {
                let Some((index, choice, part)) = &mut open else {
                    let (index, part) = parts.next()?;
                    match part.open_weighted(seed, index) {
                        Ok((choice, part)) => open = Some((index, choice, part)),
                        Err(error) => {
                            ended = true;
                            return Some(Err(error));
                        }
                    }
                    continue;
                };
                match part.next() {
                    None => {
                        before += part.total.unwrap_or(part.next);
                        open = None;
                    }
                    Some(record) => {
                        ended = record.is_err();
                        let times = choice.as_mut().map_or(1, Choice::next);
                        return Some(record.map(|(number, record)| Weighted {
                            number: before + number,
                            part: *index,
                            times,
                            record,
                        }));
                    }
                }
            }
            None
        })
    }

    /// How a report names a row: by its line, and by its file too where there are several.
    pub fn name(&self, place: &Place) -> String {
        match self.several() {
            true => place.to_string(),
            false => place.short(),
        }
    }
}

/// A part that is being read.
struct Open {
    // The file that is being read, and those after it.
    rows: Option<Rows>,
    files: std::vec::IntoIter<PathBuf>,
    // The number in the part of the row that comes next.
    next: usize,
    end: usize,
    // The rows of the whole part, where they were counted.
    total: Option<usize>,
}

impl Part {
    fn open_weighted(&self, seed: Option<u64>, index: usize) -> Result<(Option<Choice>, Open)> {
        let open = self.open()?;
        let Some(seed) = seed.filter(|_| !self.weight.is_one()) else {
            return Ok((None, open));
        };
        let rows = match (self.weight.has_fraction(), open.total) {
            (false, _) => 0,
            (true, Some(_)) => open.end - open.next,
            (true, None) => self.counts()?.iter().sum(),
        };
        Ok((Some(Choice::new(self.weight, rows, seed, index)), open))
    }

    /// The rows of each file.
    fn counts(&self) -> Result<Vec<usize>> {
        let count = |file: &PathBuf| read::rows(file)?.pass(usize::MAX);
        expand(&self.name)?.iter().map(count).collect()
    }

    fn open(&self) -> Result<Open> {
        let files = expand(&self.name)?;
        let mut open = Open {
            rows: None,
            files: files.clone().into_iter(),
            next: 0,
            end: usize::MAX,
            total: None,
        };
        if let Some(slice) = self.slice {
            let counts = self.counts()?;
            let total = counts.iter().sum();
            let range = slice.of(total, files.len() > 1);
            let range = range.map_err(|error| error.at(self))?;
            // Files before the slice are not opened again.
            let mut counts = counts.into_iter().peekable();
            while let Some(rows) = counts.next_if(|rows| open.next + rows <= range.start) {
                open.next += rows;
                open.files.next();
            }
            let within = range.start - open.next;
            open.next_file()?;
            if let Some(rows) = &mut open.rows {
                open.next += rows.pass(within)?;
            }
            (open.end, open.total) = (range.end, Some(total));
        }
        Ok(open)
    }
}

impl Open {
    fn next_file(&mut self) -> Result<bool> {
        self.rows = self
            .files
            .next()
            .map(|file| read::rows(&file))
            .transpose()?;
        Ok(self.rows.is_some())
    }
}

impl Iterator for Open {
    type Item = Result<(usize, Record)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.end {
            return None;
        }
        loop {
            if let Some(record) = self.rows.as_mut().and_then(Iterator::next) {
                let number = self.next;
                self.next += 1;
                return Some(record.map(|record| (number, record)));
            }
            match self.next_file() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Slice {
    fn of(self, rows: usize, several: bool) -> Result<Range<usize>> {
        let bound = |bound: Bound| match bound {
            Bound::Row(row) => row,
            // As Hugging Face rounds, so that `[:90%]` and `[90%:]` are the same parts there and here.
            Bound::Percent(percent) => {
                (percent as f64 * rows as f64 / 100.0).round_ties_even() as usize
            }
        };
        let range = self.from.map_or(0, bound)..self.to.map_or(rows, bound);
        if range.end > rows || range.start > rows {
            let what = match several {
                true => format!("the files have {rows} rows"),
                false => format!("the file has {rows} rows"),
            };
            return Err(Error::input(what)
                .hint("a slice lies within its file; leave a bound out for the file's own"));
        }
        if range.is_empty() {
            return Err(Error::input(format!("no row of {rows} is in the slice"))
                .hint("rows are counted from 0 and the second bound is left out"));
        }
        Ok(range)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let whole = |path: &str| match path.is_empty() {
            true => Err("the path is empty".to_owned()),
            false => match on_hub(Path::new(path)) {
                Some(Err(wrong)) => Err(wrong),
                _ => Ok(PathBuf::from(path)),
            },
        };
        let sliced = text
            .strip_suffix(']')
            .and_then(|rest| rest.rsplit_once('['));
        let is_slice = |rest: &str| {
            rest.contains(':') && !rest.contains(|c: char| !"0123456789:%".contains(c))
        };
        if let Some((_, open)) = text.rsplit_once('[').filter(|(_, rest)| is_slice(rest)) {
            return Err(format!("the slice of `{text}` is not closed: [{open}]"));
        }
        let Some((path, slice)) = sliced else {
            return Ok(Self {
                name: whole(text)?,
                slice: None,
                weight: Weight::default(),
            });
        };
        let wrong = || {
            format!(
                "`{text}` ends in no slice: valid are e.g. [:1000], [100:200], [90%:], rows counted from 0"
            )
        };
        let (from, to) = slice.split_once(':').ok_or_else(wrong)?;
        let bound = |text: &str| -> std::result::Result<Option<Bound>, String> {
            let digits = text.strip_suffix('%').unwrap_or(text);
            match (text.is_empty(), digits.parse()) {
                (true, _) => Ok(None),
                (_, Ok(percent)) if text.ends_with('%') && percent <= 100 => {
                    Ok(Some(Bound::Percent(percent)))
                }
                (_, Ok(row)) if !text.ends_with('%') => Ok(Some(Bound::Row(row))),
                _ => Err(wrong()),
            }
        };
        Ok(Self {
            name: whole(path)?,
            slice: Some(Slice {
                from: bound(from)?,
                to: bound(to)?,
            }),
            weight: Weight::default(),
        })
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.name.display())?;
        let bound = |bound: Option<Bound>| match bound {
            None => String::new(),
            Some(Bound::Row(row)) => row.to_string(),
            Some(Bound::Percent(percent)) => format!("{percent}%"),
        };
        match self.slice {
            None => Ok(()),
            Some(Slice { from, to }) => write!(f, "[{}:{}]", bound(from), bound(to)),
        }
    }
}

impl FromStr for Files {
    type Err = String;

    /// One file, with a slice or without.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::try_from(Written::One(WrittenPart::Path(text.to_owned())))
    }
}

impl<P: Into<PathBuf>> From<P> for Files {
    /// One whole file, whatever its name.
    fn from(path: P) -> Self {
        let part = Part {
            name: path.into(),
            slice: None,
            weight: Weight::default(),
        };
        Self {
            parts: vec![part],
            is_list: false,
        }
    }
}

impl Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            let between = if index > 0 { ", " } else { "" };
            write!(f, "{between}{part}")?;
        }
        Ok(())
    }
}
