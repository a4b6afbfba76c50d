//! A directory that is complete and on disk before it gets its name.
//!
//! *Why*: a name that exists is a promise. So everything is written under a temporary name, each file
//! created anew, hashed on the way and synced; `MANIFEST.json` comes last; the directory is synced and
//! renamed, and the directory above is synced. After an error of any of these nothing is written to the
//! same files again: what was staged is dropped, and the next attempt begins with new files.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::directory::{parent, rename, sync};
use super::hash::HashingFile;
use super::manifest::{MANIFEST, Manifest};
use crate::error::{Error, Result};

/// The prefix of the names of directories that are not complete yet.
pub const TEMPORARY: &str = ".tmp-";

/// A directory `.tmp-…` beside its target; dropping this value removes it unless it was [settled](Self::settle).
pub struct Staging {
    path: PathBuf,
    manifest: Manifest,
}

impl Staging {
    /// Makes an empty one in the directory that `target` is to lie in, which must exist: one that was
    /// moved away is not made anew.
    pub fn beside(target: &Path) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        // Processes of two machines, or of two containers, may have the same id.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_nanos();
        let name = format!("{TEMPORARY}{name}-{}-{since}", std::process::id());
        let path = parent(target).join(name);
        fs::create_dir(&path).map_err(|error| Error::io(parent(target), &error))?;
        Ok(Self {
            path,
            manifest: Manifest::default(),
        })
    }

    /// Where it is now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file `name` of what `write` writes, and syncs it. The name may be that of a file in a
    /// directory, `DIRECTORY/FILE`.
    pub fn file(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let file = StagedFile::write(&self.path, name, write)?;
        self.add(file);
        Ok(())
    }

    /// Adds a file that another process has written there.
    pub fn add(
        &mut self,
        StagedFile {
            name,
            bytes,
            sha256,
        }: StagedFile,
    ) {
        self.manifest.add(&name, bytes, sha256);
    }

    /// Makes the file `name` of these bytes.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        self.file(name, |out| {
            out.write_all(bytes)
                .map_err(|error| Error::io(&path, &error))
        })
    }

    /// Writes the manifest; no file may be added afterwards.
    pub fn seal(&mut self) -> Result<()> {
        let text = self.manifest.to_json()?;
        self.bytes(MANIFEST, text.as_bytes())?;
        sync(&self.path)
    }

    /// Renames the directory to `target`, which must not exist or be an empty directory.
    pub fn settle(self, target: &Path) -> Result<()> {
        // Removed only if it is empty; not every system lets a rename replace an empty directory.
        let _ = fs::remove_dir(target);
        rename(&self.path, target)?;
        let synced = sync(parent(target));
        if synced.is_err() {
            // A name that may not last must not be seen.
            let _ = fs::rename(target, &self.path);
        }
        synced
    }
}

/// A file of a staged directory, as its manifest has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct StagedFile {
    name: String,
    bytes: u64,
    sha256: String,
}

impl StagedFile {
    /// Makes the file `name` in the directory of a [`Staging`], which may be another process's, of what `write`
    /// writes, and syncs it.
    pub fn write(
        folder: &Path,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Self> {
        let path = folder.join(name);
        let io = |error: io::Error| Error::io(&path, &error);
        let directory = parent(&path);
        if directory != folder {
            fs::create_dir_all(directory).map_err(io)?;
        }
        let create = OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = HashingFile::new(create.map_err(io)?);
        let mut buffered = BufWriter::with_capacity(1 << 20, &mut file);
        write(&mut buffered)?;
        buffered.flush().map_err(io)?;
        drop(buffered);
        let (bytes, sha256) = file.finish().map_err(io)?;
        if directory != folder {
            sync(directory)?;
        }
        let name = name.to_owned();
        Ok(Self {
            name,
            bytes,
            sha256,
        })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
