//! A file of JSON lines that a run appends to and can do without.
//!
//! *Why*: a full disk must not end the run. A line that cannot be written is kept in memory, in order,
//! and retried with the next one; the file never holds an incomplete line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::io::durable::{json_line, open_plain};

/// An open file of lines.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// The bytes of complete lines in the file.
    length: u64,
    /// Lines that are not written yet.
    pending: Vec<u8>,
}

impl Log {
    /// Opens an empty file, replacing an existing one.
    pub fn create(path: &Path) -> Result<Self> {
        let log = Self::open(path, 0)?;
        Ok(Self {
            length: 0,
            pending: Vec::new(),
            ..log
        })
    }

    /// Opens the file and truncates it to `bytes`, or to its last complete line if it is shorter.
    pub fn open(path: &Path, bytes: u64) -> Result<Self> {
        let io = |error: io::Error| Error::io(path, &error);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = open_plain(path, options)?;
        let metadata = file.metadata().map_err(io)?;
        let length = match metadata.len() {
            longer if longer >= bytes => bytes,
            _ => whole_lines(&mut file).map_err(io)?,
        };
        file.set_len(length).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            pending: Vec::new(),
        })
    }

    /// Appends a line, after pending ones.
    ///
    /// # Errors
    /// If it cannot be written now; it stays pending.
    pub fn append(&mut self, line: &impl Serialize) -> Result<()> {
        self.append_bytes(json_line(line)?.as_bytes())
    }

    /// As [`append`](Self::append), of bytes as they are.
    pub fn append_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        self.flush()
    }

    /// Writes pending lines.
    pub fn flush(&mut self) -> Result<()> {
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(self.length))?;
            file.write_all(&self.pending)
        };
        if let Err(error) = write(&mut self.file) {
            // Remove what was written of a line; if that fails, the next attempt overwrites it.
            let _ = self.file.set_len(self.length);
            return Err(Error::io(&self.path, &error));
        }
        self.length += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Syncs all lines to disk; returns their bytes.
    pub fn sync(&mut self) -> Result<u64> {
        self.flush()?;
        self.file
            .sync_data()
            .map_err(|error| Error::io(&self.path, &error))?;
        Ok(self.length)
    }

    /// Whether lines are pending.
    pub fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The bytes of all lines, pending ones included.
    pub fn bytes(&self) -> u64 {
        self.length + self.pending.len() as u64
    }
}

fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let last = bytes.iter().rposition(|&byte| byte == b'\n');
    Ok(last.map_or(0, |at| at as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_cut_and_a_longer_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, "1\n22\n333").unwrap();
        let lines = |log: Log| {
            drop(log);
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(lines(Log::open(&path, u64::MAX).unwrap()), "1\n22\n");
        let mut log = Log::open(&path, 2).unwrap();
        log.append(&4).unwrap();
        assert_eq!((log.sync().unwrap(), log.bytes()), (4, 4));
        assert_eq!(lines(log), "1\n4\n");
        assert_eq!(lines(Log::create(&path).unwrap()), "");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_line_that_finds_no_room_waits() {
        let mut log = Log::create(&tempfile::tempdir().unwrap().path().join("x")).unwrap();
        log.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(log.append(&1).is_err());
        assert!(log.append(&2).is_err());
        assert_eq!((log.length, log.bytes()), (0, 4));
        log.file = tempfile::tempfile().unwrap();
        log.append(&3).unwrap();
        let mut text = String::new();
        log.file.seek(SeekFrom::Start(0)).unwrap();
        log.file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "1\n2\n3\n");
    }
}
