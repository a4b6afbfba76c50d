//! Files that hold one JSON object.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::io::untrusted;

/// Reads the record in a file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let value = untrusted::json_object(path, untrusted::CONFIG)?;
    serde_json::from_value(value)
        .map_err(|error| Error::input(error.to_string()).at(path.display()))
}

/// Reads the record in a file that may be absent.
pub(super) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match path.is_file() {
        true => read(path).map(Some),
        false => Ok(None),
    }
}
