//! Compressed files as what they hold: gzip and zstd, known by their first bytes.
//!
//! *Why*: a compressed file that was cut must not look like a shorter one, and a kilobyte of it may
//! hold a terabyte: it is read as a stream, and what is wrong with the stream has its own message.

use crate::error::Error;
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const BUFFER: usize = 1 << 16;

/// What a file holds, and how it is compressed.
pub(super) struct Plain {
    pub reader: Box<dyn BufRead>,
    pub compression: Option<&'static str>,
}

/// Reads through the compression that the first bytes show, if any.
pub(super) fn decompress(mut file: impl BufRead + 'static) -> io::Result<Plain> {
    let start = file.fill_buf()?;
    Ok(if start.starts_with(GZIP) {
        Plain {
            reader: Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file))),
            compression: Some("gzip"),
        }
    } else if start.starts_with(ZSTD) {
        let decoder = zstd::stream::read::Decoder::with_buffer(file)?;
        Plain {
            reader: Box::new(BufReader::with_capacity(BUFFER, decoder)),
            compression: Some("zstd"),
        }
    } else {
        Plain {
            reader: Box::new(file),
            compression: None,
        }
    })
}

/// The error of a compressed stream; `None` if the system failed to read it.
pub(super) fn damaged(compression: Option<&'static str>, error: &io::Error) -> Option<Error> {
    let compression = compression.filter(|_| error.raw_os_error().is_none())?;
    let what = format!("the {compression} stream is damaged or cut off");
    Some(Error::input(what).hint("fetch the file again"))
}
