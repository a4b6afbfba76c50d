//! Recognizes files that hold no rows of text, by their first bytes.
//!
//! *Why*: the files that are wrong in practice are rarely wrong rows: they are an archive, a pointer left
//! by Git LFS, a web page, UTF-16. Each has a word of its own.

use super::{arrow, parquet};
use crate::io::untrusted;

/// What a file is whose first line cannot belong to rows of text, and what to do about it.
pub(super) fn something_else(line: &[u8], is_text: bool) -> Option<(&'static str, &'static str)> {
    const UNPACK: &str = "unpack it: expo reads JSON lines, JSON, CSV and text, plain or in gzip or \
                          zstd, and parquet and Arrow";
    const KINDS: [(&[u8], &str); 12] = [
        (
            b"PK\x03\x04",
            "the file is a zip archive, as .xlsx and .npz are",
        ),
        (b"BZh", "the file is compressed with bzip2"),
        (b"\xfd7zXZ", "the file is compressed with xz"),
        (b"7z\xbc\xaf", "the file is a 7z archive"),
        (
            b"\x28\xb5\x2f\xfd",
            "the file is compressed with zstd in another compression",
        ),
        (
            b"\x1f\x8b",
            "the file is compressed with gzip in another compression",
        ),
        (parquet::MAGIC, "the file is compressed parquet"),
        (arrow::MAGIC, "the file is compressed Arrow"),
        (arrow::CONTINUATION, "the file is compressed Arrow"),
        (b"Obj\x01", "the file is Avro"),
        (b"ORC", "the file is ORC"),
        (b"SQLite format 3", "the file is an SQLite database"),
    ];
    if line.get(257..262) == Some(b"ustar") {
        return Some(("the file is a tar archive", UNPACK));
    }
    let kind = KINDS.iter().find(|(start, _)| line.starts_with(start));
    kind.map(|(_, what)| (*what, UNPACK))
        .or_else(|| untrusted::something_else(line, is_text))
}
