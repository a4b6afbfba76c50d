//! Files of JSON lines that a run appends to.

use std::io::BufReader;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::io::untrusted::{self, Line};

/// What a file of lines holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Log<T> {
    /// Its records, in order.
    pub records: Vec<T>,
    /// What could not be read, as `PATH:LINE: reason`.
    pub remarks: Vec<String>,
}

/// Reads a file that a run may be appending to: an absent file is empty, an incomplete last line is
/// left out, a line that is no record is a remark.
///
/// # Errors
/// Of the file system.
pub fn read_log<T: DeserializeOwned>(path: &Path) -> Result<Log<T>> {
    let mut lines = Log {
        records: Vec::new(),
        remarks: Vec::new(),
    };
    if !path.is_file() {
        return Ok(lines);
    }
    let io = |error: std::io::Error| Error::io(path, &error);
    let file = untrusted::open(path)?;
    let length = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::new(file);
    let (mut number, mut read) = (0u64, 0u64);
    loop {
        number += 1;
        let mut remark = |what: &str| {
            let remark = format!("{}:{number}: {what}", path.display());
            lines.remarks.push(remark);
        };
        let line = match untrusted::line(&mut reader).map_err(io)? {
            Line::End => return Ok(lines),
            Line::TooLong => {
                remark("the line is too long");
                return Ok(lines);
            }
            Line::Whole(line) => line,
        };
        read += line.len() as u64 + 1;
        let value = std::str::from_utf8(&line).ok();
        let value = value.and_then(|text| untrusted::parse(text).ok());
        match value.and_then(|value| serde_json::from_value(value).ok()) {
            Some(record) => lines.records.push(record),
            // The writer is in the middle of this line.
            None if read > length => return Ok(lines),
            None => remark("not a record"),
        }
    }
}
