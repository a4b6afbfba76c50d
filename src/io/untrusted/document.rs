//! A file as it was when it was read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::{Kind, bytes, decode, parse};
use crate::error::{Error, Result};

/// A file as it was when it was read: what becomes of it on disk afterwards changes nothing.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    kind: Kind,
    /// `None` if there was no such file.
    contents: Result<Option<Arc<[u8]>>>,
}

impl Document {
    /// Reads a file of this kind, which need not exist. That it cannot be read is the error of whoever
    /// asks for what it holds.
    pub fn read(path: &Path, kind: Kind) -> Self {
        let contents = match path.try_exists() {
            Ok(false) => Ok(None),
            _ => bytes(path, kind).map(|bytes| Some(bytes.into())),
        };
        Self {
            path: path.to_owned(),
            kind,
            contents,
        }
    }

    /// One of these bytes, that stands for the file at `path`.
    pub fn of(path: &Path, kind: Kind, bytes: Vec<u8>) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            contents: Ok(Some(bytes.into())),
        }
    }

    /// One that does not exist.
    pub(in crate::io) fn absent(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            kind: super::CONFIG,
            contents: Ok(None),
        }
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there was such a file, even one that could not be read.
    pub fn exists(&self) -> bool {
        !matches!(self.contents, Ok(None))
    }

    /// All its bytes.
    ///
    /// # Errors
    /// If there was no such file, or it could not be read.
    pub fn bytes(&self) -> Result<&[u8]> {
        match &self.contents {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Error::io(&self.path, &io::ErrorKind::NotFound.into())),
            Err(error) => Err(error.clone()),
        }
    }

    /// Its text, without a byte order mark.
    pub fn text(&self) -> Result<String> {
        decode(self.bytes()?.to_vec(), self.kind).map_err(|error| error.at(self.path.display()))
    }

    /// Its JSON. A key that an object has twice is an error.
    pub fn json(&self) -> Result<Value> {
        let text = self.text()?;
        parse(&text).map_err(|error| {
            let what = match text.trim().is_empty() {
                true => "the file is empty".to_owned(),
                false => format!("not JSON: {error}"),
            };
            Error::input(what)
                .hint("fetch the file again")
                .at(self.path.display())
        })
    }

    /// As [`json`](Self::json), of a file that holds an object.
    pub fn json_object(&self) -> Result<Value> {
        let value = self.json()?;
        match value.is_object() {
            true => Ok(value),
            false => Err(Error::input("not a JSON object").at(self.path.display())),
        }
    }

    /// As [`json_object`](Self::json_object); `None` if there was no such file.
    pub fn optional_json_object(&self) -> Result<Option<Value>> {
        match self.exists() {
            false => Ok(None),
            true => self.json_object().map(Some),
        }
    }
}
