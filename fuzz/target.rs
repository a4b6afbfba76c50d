//! What every fuzz target does.

use std::sync::OnceLock;

use tempfile::TempDir;

use crate::parsers::{self, PARSERS};

/// Reads the bytes as the file of this parser; only an error without its file, or a panic that is not
/// made an error, ends the program.
pub fn run(name: &str, bytes: &[u8]) {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let parser = PARSERS.iter().find(|parser| parser.name == name).unwrap();
    let folder = FOLDER.get_or_init(|| {
        // libFuzzer's own hook ends the program at every panic.
        parsers::quiet();
        let folder = parsers::folder();
        parser.prepare(folder.path());
        folder
    });
    let _ = parser.run(folder.path(), bytes);
}
