//! Records that are written once and read back by their place.
//!
//! Hides whether they are in memory or on disk: up to 64 MiB stay in memory, more goes into a file
//! without a name in the system's temporary directory.
//!
//! *Why*: the memory of a run should not grow with its files. A file without a name is gone with the
//! process, however it ends, and nobody else can change it.

use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Bytes that stay in memory.
const MEMORY: usize = 64 << 20;

/// Bytes written or copied at once where there is a file.
const BLOCK: usize = 1 << 20;

/// Records one after the other.
#[derive(Debug)]
pub(super) struct Store {
    limit: usize,
    folder: PathBuf,
    // Behind a lock, since it has one position for all who read.
    file: Option<Mutex<File>>,
    // The bytes in the file; those after them are in `tail`. No record is in both.
    written: u64,
    tail: Vec<u8>,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub at: u64,
    pub length: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(MEMORY, std::env::temp_dir())
    }
}

impl Store {
    /// Keeps `limit` bytes in memory, and more of them in `folder`.
    pub fn new(limit: usize, folder: PathBuf) -> Self {
        Self {
            limit,
            folder,
            file: None,
            written: 0,
            tail: Vec::new(),
        }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// If the directory cannot be written to, or is full.
    pub fn push(&mut self, record: &[u8]) -> Result<Span> {
        let limit = match self.file {
            Some(_) => BLOCK,
            None => self.limit,
        };
        if self.tail.len() + record.len() > limit {
            self.write_tail().map_err(|error| self.failed(&error))?;
        }
        let at = self.length();
        if self.tail.len() + record.len() > self.tail.capacity() && self.tail.capacity() >= BLOCK {
            // Grown step by step it would leave holes of its own size behind; what is only reserved
            // takes no memory yet.
            self.tail
                .reserve_exact(limit.min(MEMORY).saturating_sub(self.tail.len()));
        }
        self.tail.extend_from_slice(record);
        Ok(Span {
            at,
            length: record.len(),
        })
    }

    /// The bytes of a record.
    pub fn read(&self, span: Span) -> Result<Cow<'_, [u8]>> {
        if let Some(from) = span.at.checked_sub(self.written) {
            let from = from as usize;
            return Ok(Cow::Borrowed(&self.tail[from..from + span.length]));
        }
        self.read_file(span)
            .map(Cow::Owned)
            .map_err(|error| self.failed(&error))
    }

    /// Appends the records of another store; each is then so much further on.
    pub fn append(&mut self, other: &Self) -> Result<u64> {
        let shift = self.length();
        for at in (0..other.written).step_by(BLOCK) {
            let length = (other.written - at).min(BLOCK as u64) as usize;
            self.push(&other.read(Span { at, length })?)?;
        }
        self.push(&other.tail)?;
        // A block may end within a record, which is then in the file with all of it.
        if self.file.is_some() {
            self.write_tail().map_err(|error| self.failed(&error))?;
        }
        Ok(shift)
    }

    /// Appends a value.
    pub fn push_value(&mut self, value: &impl Serialize) -> Result<Span> {
        let record = postcard::to_allocvec(value);
        self.push(&record.map_err(|error| Error::failed(error.to_string()))?)
    }

    /// A value of [`push_value`](Self::push_value).
    pub fn value<T: DeserializeOwned>(&self, span: Span) -> Result<T> {
        match postcard::take_from_bytes(&self.read(span)?) {
            Ok((value, [])) => Ok(value),
            _ => Err(self.damaged()),
        }
    }

    /// The error of a record that is not what was written.
    fn damaged(&self) -> Error {
        Error::failed(format!(
            "{}: a temporary file was changed",
            self.folder.display()
        ))
    }

    fn length(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    fn write_tail(&mut self) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => Mutex::new(tempfile::tempfile_in(&self.folder)?),
        };
        let file = self.file.insert(file);
        let file = file.get_mut().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.written))?;
        file.write_all(&self.tail)?;
        self.written += self.tail.len() as u64;
        // What it was before there was a file is more than it will need.
        self.tail = Vec::with_capacity(BLOCK);
        Ok(())
    }

    fn read_file(&self, span: Span) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; span.length];
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(span.at))?;
            file.read_exact(&mut bytes)?;
        }
        Ok(bytes)
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io(&self.folder, error)
            .hint("what does not fit into memory is kept there; set TMPDIR to another directory")
    }
}

/// What a text is found again by: 128 bits of its SHA-256.
pub(super) type Key = [u8; 16];

pub(super) fn key(text: &str) -> Key {
    let hash = Sha256::digest(text);
    let mut key = Key::default();
    key.copy_from_slice(&hash[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Example, Response};
    use crate::loss::Role;

    fn records() -> Vec<Vec<u8>> {
        let record = |n: usize| vec![n as u8; n * 7919 % (BLOCK / 3)];
        (0..40).map(record).collect()
    }

    fn filled(limit: usize, folder: PathBuf) -> (Store, Vec<Span>) {
        let mut store = Store::new(limit, folder);
        let spans = records().iter().map(|r| store.push(r).unwrap()).collect();
        (store, spans)
    }

    fn all(store: &Store, spans: &[Span]) -> Vec<Vec<u8>> {
        let read = |span: &Span| store.read(*span).unwrap().into_owned();
        spans.iter().rev().map(read).rev().collect()
    }

    #[test]
    fn what_was_written_is_read_whether_in_memory_or_in_a_file_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        for limit in [0, 1, 100_000, MEMORY] {
            let (store, spans) = filled(limit, folder.path().to_owned());
            assert_eq!(store.file.is_some(), limit < MEMORY);
            assert_eq!(all(&store, &spans), records());
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn appended_records_are_where_they_were_and_so_much_further_on() {
        let folder = tempfile::tempdir().unwrap();
        for (limit, other) in [(0, 0), (0, MEMORY), (MEMORY, 0), (MEMORY, MEMORY)] {
            let (mut store, mut spans) = filled(limit, folder.path().to_owned());
            let (other, others) = filled(other, folder.path().to_owned());
            let shift = store.append(&other).unwrap();
            spans.extend(others.iter().map(|span| Span {
                at: span.at + shift,
                ..*span
            }));
            assert_eq!(all(&store, &spans), [records(), records()].concat());
        }
    }

    #[test]
    fn a_value_is_the_same_after_a_round_trip_and_half_of_it_is_an_error() {
        let mut chosen = Response::new(Role::Chosen, vec![3, u32::MAX, 0]);
        (chosen.context, chosen.score) = (vec![0..1, 2..3], Some(0.1));
        let mut example = Example {
            row: usize::MAX,
            prompt: vec![1, 2],
            responses: vec![chosen, Response::new(Role::Mismatched, vec![5])],
            preference: Some(0.0),
        };
        let mut store = Store::default();
        for _ in 0..3 {
            let span = store.push_value(&example).unwrap();
            assert_eq!(store.value::<Example>(span), Ok(example.clone()));
            for length in 0..span.length {
                let damaged = store.value::<Example>(Span { length, ..span });
                assert_eq!(damaged, Err(store.damaged()));
            }
            example.preference = None;
            example.prompt.pop();
            example.responses.pop();
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut store = Store::new(0, "/no/such/folder".into());
        assert_eq!(
            store.push(b"x").unwrap_err().to_string(),
            "/no/such/folder: no such file or directory; what does not fit into memory is kept there; \
             set TMPDIR to another directory"
        );
    }
}
