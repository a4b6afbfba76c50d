//! Files of rows that were cut or damaged: one error, or all rows; never fewer than there were.

use std::path::Path;

use expo::data::Files;
use parquet::basic::Compression;

use crate::data::formats::{arrow_file, arrow_stream, parquet_file, prompts, zst};

/// The rows of a file, bad ones included, or the error that ends it.
fn read(path: &Path, bytes: &[u8]) -> Result<usize, String> {
    std::fs::write(path, bytes).unwrap();
    let files = Files::from(path);
    let mut rows = 0;
    for record in files.records() {
        let record = record.map_err(|error| {
            let text = error.to_string();
            let place = path.display().to_string();
            assert!(
                text.starts_with(&place) && text.lines().count() == 1,
                "{text}"
            );
            assert_eq!(error.exit_code(), 2, "{text}");
            text
        });
        let _ = record?;
        rows += 1;
    }
    Ok(rows)
}

fn instances() -> Vec<(&'static str, Vec<u8>)> {
    let batches = [
        prompts(&["a", "a", "b"]),
        prompts(&["longer than twelve bytes", "d"]),
    ];
    let lines = "{\"prompt\": \"a\"}\n".repeat(5);
    let list = format!("[{}]", ["{\"prompt\": \"a\"}"; 5].join(",\n"));
    vec![
        (
            "rows.parquet",
            parquet_file(&batches, Compression::UNCOMPRESSED),
        ),
        (
            "snappy.parquet",
            parquet_file(&batches, Compression::SNAPPY),
        ),
        ("stream.arrow", arrow_stream(&batches)),
        ("file.arrow", arrow_file(&batches)),
        ("rows.jsonl.zst", zst(lines.as_bytes())),
        ("rows.json", list.into_bytes()),
    ]
}

#[test]
fn a_file_that_was_cut_never_looks_like_a_shorter_one() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in instances() {
        let path = folder.path().join(name);
        assert_eq!(read(&path, &bytes), Ok(5), "{name}");
        for length in 0..bytes.len() {
            let found = read(&path, &bytes[..length]);
            assert!(found.is_err(), "{name} cut to {length}: {found:?}");
        }
    }
}

#[test]
fn no_flipped_bit_loses_a_row_in_silence() {
    super::parsers::quiet();
    let folder = tempfile::tempdir().unwrap();
    // Of text nothing says how many rows it had.
    let binary = instances()
        .into_iter()
        .filter(|(name, _)| *name != "rows.json");
    for (name, bytes) in binary {
        let path = folder.path().join(name);
        let (mut refused, mut read_all) = (0, 0);
        // All of them take a minute; a prime as the step leaves every place in a byte.
        for bit in (0..8 * bytes.len()).step_by(13) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match read(&path, &flipped) {
                Err(_) => refused += 1,
                Ok(5) => read_all += 1,
                Ok(rows) => panic!("{name} bit {bit}: {rows} rows"),
            }
        }
        println!("{name}: {refused} refused, {read_all} read whole");
    }
}

/// A parquet file without rows, whose only column lies so many groups deep.
fn nested(groups: usize) -> Vec<u8> {
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    let mut elements = groups + 2;
    while elements > 0x7f {
        footer.push(elements as u8 | 0x80);
        elements >>= 7;
    }
    footer.push(elements as u8);
    footer.extend_from_slice(b"\x48\x01r\x15\x02\x00");
    footer.extend(b"\x35\x00\x18\x01a\x15\x02\x00".repeat(groups));
    footer.extend_from_slice(b"\x15\x00\x25\x00\x18\x01b\x00\x16\x00\x19\x0c\x00");
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", &footer[..], &length, b"PAR1"].concat()
}

#[test]
fn columns_nested_too_deep_for_a_stack_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep.parquet");
    for (groups, what) in [
        (3, "the file has no rows"),
        (90, "the file has no rows"),
        (100, "the columns are nested more than 100 deep"),
        (1_000_000, "the columns are nested more than 100 deep"),
    ] {
        let message = read(&path, &nested(groups)).unwrap_err();
        assert!(message.contains(what), "{message}");
    }
}
