//! SHA-256 of files, computed as they are written or read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The length of a file, and its SHA-256 in hex.
pub(super) type Hash = (u64, String);

/// A file that is hashed while it is written.
pub(super) struct HashingFile {
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl HashingFile {
    /// Around a new, empty file.
    pub fn new(file: File) -> Self {
        Self {
            file,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    /// Syncs the file; the hash of everything written.
    pub fn finish(self) -> io::Result<Hash> {
        self.file.sync_all()?;
        Ok((self.bytes, format!("{:x}", self.hasher.finalize())))
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The hash of the file at `path`.
pub(super) fn hash_file(path: &Path) -> Result<Hash> {
    let io = |error: io::Error| Error::io(path, &error);
    let mut file = File::open(path).map_err(io)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece).map_err(io)?;
        if read == 0 {
            return Ok((bytes, format!("{:x}", hasher.finalize())));
        }
        hasher.update(&piece[..read]);
        bytes += read as u64;
    }
}
