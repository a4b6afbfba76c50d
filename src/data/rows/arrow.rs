//! Arrow IPC: streams and files of record batches, as Python's `datasets` and feather write them.
//!
//! Hides the messages that both consist of. A file is a stream in an envelope, so both are read
//! from their first message to their end, one batch at a time.
//!
//! *Why*: a stream has no index, so one that was cut between two messages looks whole. It is held to
//! its mark of the end, a file to the batches of its footer, and each message to the bytes there are.

use super::columnar::{Batches, check_names};
use crate::error::{Error, Result};
use crate::io::untrusted::guarded;
use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::{Message, MessageHeader, root_as_footer, root_as_message};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// What Arrow files begin and end with.
pub(super) const MAGIC: &[u8] = b"ARROW1";
/// What every message begins with, and so a stream.
pub(super) const CONTINUATION: &[u8] = &[0xff; 4];

/// A batch is read whole, and so is what says where its columns are.
const MOST_BYTES: u64 = 1 << 30;
const MOST_METADATA: u64 = 64 << 20;

/// Behind the footer: its length and the magic bytes.
const TRAILER: u64 = 10;

pub(super) struct Arrow {
    path: Arc<Path>,
    reader: StreamReader<Messages>,
    // A batch that came up while rows were passed over.
    waiting: Option<RecordBatch>,
}

impl Arrow {
    pub(super) fn open(path: Arc<Path>, file: File) -> Result<Self> {
        let reader = guarded(path.display(), || {
            let opened = Messages::new(&path, file).and_then(open);
            opened.map_err(|error| error.at(path.display()))
        })?;
        Ok(Self {
            path,
            reader,
            waiting: None,
        })
    }

    fn read(&mut self) -> Result<Option<RecordBatch>> {
        let path = self.path.clone();
        guarded(path.display(), || {
            let batch = self.reader.next().transpose().map_err(|error| {
                let own = self.reader.get_mut().failed.take();
                own.unwrap_or_else(|| damaged(&error.to_string()))
            });
            batch.map_err(|error| error.at(path.display()))
        })
    }
}

fn open(messages: Messages) -> Result<StreamReader<Messages>> {
    // The schema is read with the reader gone when it fails, so what failed is told by the error.
    let reader = StreamReader::try_new(messages, None);
    let reader = reader.map_err(|error| damaged(&error.to_string()))?;
    check_names(reader.schema().fields())?;
    Ok(reader)
}

impl Batches for Arrow {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        match self.waiting.take() {
            Some(batch) => Ok(Some(batch)),
            None => self.read(),
        }
    }

    fn skip(&mut self, rows: usize) -> Result<usize> {
        if self.waiting.is_some() {
            return Ok(0);
        }
        self.reader.get_mut().skip = rows;
        self.waiting = self.read()?;
        Ok(rows - std::mem::take(&mut self.reader.get_mut().skip))
    }
}

const FETCH: &str = "the file is damaged or cut off; fetch it again";

fn damaged(what: &str) -> Error {
    let line = what.lines().next().unwrap_or_default();
    Error::input(format!("cannot be read as Arrow: {line}")).hint(FETCH)
}

/// The messages of a stream or file, each checked before it is handed on.
struct Messages {
    path: Arc<Path>,
    file: BufReader<File>,
    at: u64,
    end: u64,
    // Those of the footer, and those that came by.
    batches: Option<usize>,
    seen: usize,
    // The message that is handed on, and how much of it was.
    message: Vec<u8>,
    given: usize,
    // Rows to pass over.
    skip: usize,
    ended: bool,
    failed: Option<Error>,
}

impl Messages {
    fn new(path: &Arc<Path>, file: File) -> Result<Self> {
        let io = |error: io::Error| Error::io(path, &error);
        let end = file.metadata().map_err(io)?.len();
        let mut messages = Self {
            path: path.clone(),
            file: BufReader::new(file),
            at: 0,
            end,
            batches: None,
            seen: 0,
            message: Vec::new(),
            given: 0,
            skip: 0,
            ended: false,
            failed: None,
        };
        let mut start = [0; 6];
        messages.file.read_exact(&mut start).map_err(|_| cut())?;
        messages.seek(0)?;
        if start == MAGIC {
            messages.read_footer()?;
            messages.pass_padding()?;
        }
        Ok(messages)
    }

    fn seek(&mut self, to: u64) -> Result<()> {
        let sought = self.file.seek(SeekFrom::Start(to));
        sought
            .map(drop)
            .map_err(|error| Error::io(&self.path, &error))
    }

    fn read(&mut self, bytes: u64) -> Result<&[u8]> {
        if bytes > self.end.saturating_sub(self.at) {
            return Err(cut());
        }
        let before = self.message.len();
        self.message.resize(before + bytes as usize, 0);
        let read = self.file.read_exact(&mut self.message[before..]);
        read.map_err(|error| Error::io(&self.path, &error))?;
        self.at += bytes;
        Ok(&self.message[before..])
    }

    fn read_footer(&mut self) -> Result<()> {
        let trailer = self
            .end
            .checked_sub(TRAILER)
            .filter(|at| *at >= 8)
            .ok_or_else(cut)?;
        self.seek(trailer)?;
        self.at = trailer;
        let bytes = self.read(TRAILER)?;
        let length = bytes
            .first_chunk()
            .map_or(-1, |length| i32::from_le_bytes(*length));
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let start = trailer
            .checked_sub(length)
            .filter(|at| *at >= 8 && length <= MOST_METADATA);
        let start = start.filter(|_| bytes.ends_with(MAGIC)).ok_or_else(cut)?;
        self.message.clear();
        self.seek(start)?;
        self.at = start;
        let footer = root_as_footer(self.read(length)?).map_err(|_| cut())?;
        self.batches = Some(footer.recordBatches().map_or(0, |batches| batches.len()));
        self.message.clear();
        self.end = start;
        Ok(())
    }

    // Behind the magic bytes of a file stand zeros, up to a multiple of 8 and more.
    fn pass_padding(&mut self) -> Result<()> {
        const MOST: u64 = 64;
        self.at = 8;
        self.seek(self.at)?;
        while self.at < MOST && self.read(8)?.iter().all(|byte| *byte == 0) {
            self.message.clear();
        }
        self.at -= self.message.len() as u64;
        self.message.clear();
        self.seek(self.at)
    }

    /// Reads the next message that is not passed over.
    fn fill(&mut self) -> Result<()> {
        loop {
            self.message.clear();
            self.given = 0;
            // A file may do without the mark of the end.
            if self.ended || (self.at == self.end && self.batches.is_some()) {
                return self.end();
            }
            let prefix = self.read(8)?;
            let length = prefix[4..]
                .first_chunk()
                .map_or(-1, |length| i32::from_le_bytes(*length));
            if !prefix.starts_with(CONTINUATION) {
                return Err(cut());
            }
            if length == 0 {
                self.ended = true;
                return self.end();
            }
            let length = u64::try_from(length)
                .ok()
                .filter(|length| *length <= MOST_METADATA);
            let metadata = self.read(length.ok_or_else(cut)?)?;
            let message = root_as_message(metadata).map_err(|error| damaged(&error.to_string()))?;
            let body = u64::try_from(message.bodyLength()).map_err(|_| cut())?;
            let rows = rows(&message, body)?;
            if body > self.end - self.at {
                return Err(cut());
            }
            self.seen += usize::from(rows.is_some());
            if let Some(rows) = rows.filter(|rows| *rows <= self.skip && self.skip > 0) {
                self.skip -= rows;
                self.at += body;
                self.seek(self.at)?;
                continue;
            }
            if body > MOST_BYTES {
                return Err(large(body));
            }
            let start = self.message.len();
            self.read(body)?;
            return check_compressed(&self.message[8..start], &self.message[start..]);
        }
    }

    // Nothing is handed on any more. A length that was damaged to zero ends a stream early.
    fn end(&mut self) -> Result<()> {
        self.message.clear();
        let whole = match self.batches {
            Some(batches) => batches == self.seen,
            None => self.at == self.end,
        };
        match whole {
            true => Ok(()),
            false => Err(cut()),
        }
    }
}

impl Read for Messages {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.message.len()
            && let Err(error) = self.fill()
        {
            let text = error.fact().to_owned();
            self.failed = Some(error);
            return Err(io::Error::other(text));
        }
        let read = (&self.message[self.given..]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

fn cut() -> Error {
    Error::input("the Arrow data is damaged or cut off").hint("fetch the file again")
}

fn large(bytes: u64) -> Error {
    Error::input(format!("a batch of the file has {} MiB", bytes >> 20))
        .hint("write it with batches of at most 1 GiB")
}

// The rows of a batch. Each takes a bit at least: more are a claim, not data.
fn rows(message: &Message, body: u64) -> Result<Option<usize>> {
    let Some(batch) = message.header_as_record_batch() else {
        return match message.header_type() {
            MessageHeader::Schema | MessageHeader::DictionaryBatch => Ok(None),
            _ => Err(cut()),
        };
    };
    let rows = u64::try_from(batch.length()).map_err(|_| cut())?;
    let ratio = if batch.compression().is_some() {
        1 << 16
    } else {
        8
    };
    match rows <= body.saturating_mul(ratio) {
        true => Ok(Some(rows as usize)),
        false => Err(Error::input(format!(
            "a batch of {body} bytes says that it has {rows} rows"
        ))
        .hint("the file is damaged, or has no column with values")),
    }
}

// What a batch has when it is decompressed, as it says in front of each buffer.
fn check_compressed(metadata: &[u8], body: &[u8]) -> Result<()> {
    let message = root_as_message(metadata).map_err(|error| damaged(&error.to_string()))?;
    let dictionary = message.header_as_dictionary_batch();
    let batch = dictionary.and_then(|dictionary| dictionary.data());
    let Some(batch) = message.header_as_record_batch().or(batch) else {
        return Ok(());
    };
    if batch.compression().is_none() {
        return Ok(());
    }
    let mut bytes: u64 = 0;
    for buffer in batch.buffers().into_iter().flatten() {
        let at = usize::try_from(buffer.offset()).unwrap_or(usize::MAX);
        let length = body.get(at..).and_then(|rest| rest.first_chunk());
        let length = length.map_or(0, |length| i64::from_le_bytes(*length));
        bytes = bytes.saturating_add(u64::try_from(length).unwrap_or_default());
    }
    match bytes > MOST_BYTES {
        true => Err(large(bytes)),
        false => Ok(()),
    }
}
