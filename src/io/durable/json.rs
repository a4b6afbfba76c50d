//! JSON files.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};

/// Writes [indented JSON](json_text); neither atomic nor synced.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    fs::write(path, json_text(value)?).map_err(|error| Error::io(path, &error))
}

/// Indented JSON, with a newline at its end.
pub fn json_text(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|error| Error::failed(error.to_string()))? + "\n")
}
