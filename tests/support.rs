//! What the integration tests share.

use std::path::{Path, PathBuf};

/// The folder of real data, models and oracle values; `None`, said on stderr, where there is none.
#[allow(dead_code)]
pub fn real_fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("EXPO_FIXTURES").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: EXPO_FIXTURES is not set");
    }
    folder
}

/// A file of the project's own fixtures, `tests/fixtures/{name}`.
#[allow(dead_code)]
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A JSON file.
#[allow(dead_code)]
pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
