//! JSON files.

use serde::Serialize;

use crate::error::{Error, Result};

/// Indented JSON, with a newline at its end.
pub fn json_text(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|error| Error::failed(error.to_string()))? + "\n")
}
