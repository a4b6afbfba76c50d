//! Where a result goes that a user names a place for: a file that gets its name when it is complete, or
//! an open stream.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::durable::{create_parent, write_with};
use crate::error::{Error, Result};

/// Where a result goes.
#[derive(Debug)]
pub enum Output {
    /// A file of this path. Whatever is there is replaced at once, when all is written.
    File(PathBuf),
    /// A stream, by the name that the user gave it: a pipe, a terminal, a device. Nothing is replaced.
    Stream(PathBuf, File),
}

impl Output {
    /// Its name, for messages.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Stream(path, _) => path,
        }
    }

    /// Writes all that `write` writes. A closed pipe is not an error.
    ///
    /// # Errors
    /// Of `write` and of the file system; the old file, if any, is then untouched.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        match self {
            Self::File(path) => {
                create_parent(path)?;
                write_with(path, write)
            }
            Self::Stream(path, file) => {
                let mut out = BufWriter::with_capacity(1 << 16, Pipe::new(file));
                write(&mut out)?;
                out.flush().map_err(|error| Error::io(path, &error))
            }
        }
    }

    /// Writes these bytes.
    pub fn write_bytes(&self, bytes: &[u8]) -> Result<()> {
        let io = |error: io::Error| Error::io(self.path(), &error);
        self.write(|out| out.write_all(bytes).map_err(io))
    }
}

/// A stream that discards what is written to a closed pipe.
pub struct Pipe<'a> {
    file: &'a File,
    closed: bool,
}

impl<'a> Pipe<'a> {
    /// Around an open stream.
    pub fn new(file: &'a File) -> Self {
        let closed = false;
        Self { file, closed }
    }

    /// Whether its reader has gone.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        match self.file.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(bytes.len())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_with_the_directories_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        let output = Output::File(path.clone());
        output.write_bytes(b"one").unwrap();
        output.write_bytes(b"two").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"two");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_device_is_an_error_and_a_closed_pipe_is_none() {
        let stream = |file: File| Output::Stream("out".into(), file);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = stream(full).write_bytes(b"x").unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.exit_code()),
            ("out: No space left on device (os error 28)", 1)
        );
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = stream(File::from(std::os::fd::OwnedFd::from(writer)));
        output.write_bytes(&[0; 1 << 17]).unwrap();
    }
}
