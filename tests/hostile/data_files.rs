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
