//! `MANIFEST.json`: the files of a directory with their lengths and hashes.
//!
//! *Why*: safetensors has no checksum, and a flipped bit in a weight loads like any other weight. The
//! manifest is written last, so a directory without one was never complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::hash::hash_file;
use super::json::json_text;
use crate::error::{Error, Result};
use crate::io::untrusted;

/// The name of the manifest file.
pub const MANIFEST: &str = "MANIFEST.json";

const VERSION: u32 = 1;

/// The files of a directory, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    files: BTreeMap<String, Fingerprint>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fingerprint {
    bytes: u64,
    sha256: String,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            version: VERSION,
            files: BTreeMap::new(),
        }
    }
}

impl Manifest {
    /// Reads the manifest of a directory.
    ///
    /// # Errors
    /// If there is none, it cannot be parsed, or it names a file outside the directory.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let wrong = |what: String| {
            Error::input(what)
                .at(path.display())
                .hint("the directory is incomplete, or was not written by expo")
        };
        let value = untrusted::json(&path, untrusted::INDEX)?;
        let manifest: Self = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        if manifest.version != VERSION {
            return Err(wrong(format!("version {}", manifest.version)));
        }
        let part = |part: &str| Path::new(part).file_name().is_some_and(|name| name == part);
        let plain = |name: &String| name.split('/').all(part);
        match manifest.files.keys().find(|name| !plain(name)) {
            Some(name) => Err(wrong(format!("\"{name}\" is not a file name"))),
            None => Ok(manifest),
        }
    }

    /// Hashes every file of the directory again. Returns the number of files and of bytes.
    ///
    /// # Errors
    /// Names the first file that is missing or differs from what was written.
    pub fn check(&self, folder: &Path) -> Result<(usize, u64)> {
        let mut total = 0;
        for (name, fingerprint) in &self.files {
            let path = folder.join(name);
            let (bytes, sha256) = hash_file(&path)?;
            let damaged = |what: String| Err(Error::input(what).at(path.display()));
            if bytes != fingerprint.bytes {
                let expected = fingerprint.bytes;
                return damaged(format!("has {bytes} bytes, was written with {expected}"));
            }
            if sha256 != fingerprint.sha256 {
                return damaged("is damaged: its SHA-256 is not that of the manifest".into());
            }
            total += bytes;
        }
        Ok((self.files.len(), total))
    }

    /// Compares the length of every file, and reads none.
    ///
    /// # Errors
    /// Names the first file that is missing or has another length than what was written.
    pub fn check_lengths(&self, folder: &Path) -> Result<()> {
        for (name, fingerprint) in &self.files {
            let path = folder.join(name);
            let found = fs::metadata(&path).map_err(|error| Error::io(&path, &error))?;
            let (bytes, expected) = (found.len(), fingerprint.bytes);
            if bytes != expected {
                let what = format!("has {bytes} bytes, was written with {expected}");
                return Err(Error::input(what).at(path.display()));
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, name: &str, bytes: u64, sha256: String) {
        let fingerprint = Fingerprint { bytes, sha256 };
        self.files.insert(name.to_owned(), fingerprint);
    }

    pub(super) fn to_json(&self) -> Result<String> {
        json_text(self)
    }
}

/// Checks a directory against its manifest. Returns the number of files and of bytes.
pub fn verify(folder: &Path) -> Result<(usize, u64)> {
    Manifest::open(folder)?.check(folder)
}
