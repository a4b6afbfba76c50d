//! Folders and files that are whole and on the disk before they have their name.
//!
//! *Why*: a name that is there is a promise. So everything is written under another name, each file
//! created anew, hashed on the way and synced; `MANIFEST.json` comes last; the folder is synced, gets
//! its name, and the folder above is synced. After an error of any of these nothing is written to the
//! same files again: what was staged is dropped, and the next attempt begins with new ones.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::manifest::{MANIFEST, Manifest};
use crate::error::{Error, Result};

/// What names of folders begin with that are not whole yet.
pub(super) const TEMPORARY: &str = ".tmp-";

/// A folder `.tmp-…` beside its target, which is gone with this value unless it got its name.
pub(super) struct Staging {
    pub path: PathBuf,
    manifest: Manifest,
}

impl Staging {
    /// Makes it.
    pub fn beside(target: &Path) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        // Processes of two machines, or of two containers, may have one number.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_nanos();
        let name = format!("{TEMPORARY}{name}-{}-{since}", std::process::id());
        let path = parent(target).join(name);
        fs::create_dir_all(&path).map_err(|error| Error::io(parent(target), &error))?;
        Ok(Self {
            path,
            manifest: Manifest::default(),
        })
    }

    /// Makes the file `name`: what `write` writes, on the disk.
    pub fn file(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let path = self.path.join(name);
        let io = |error: io::Error| Error::io(&path, &error);
        let create = OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = Hashing {
            file: create.map_err(io)?,
            hasher: Sha256::new(),
            bytes: 0,
        };
        let mut buffered = BufWriter::with_capacity(1 << 20, &mut file);
        write(&mut buffered)?;
        buffered.flush().map_err(io)?;
        drop(buffered);
        file.file.sync_all().map_err(io)?;
        let hash = format!("{:x}", file.hasher.finalize());
        self.manifest.add(name, file.bytes, hash);
        Ok(())
    }

    /// Makes the file `name` of these bytes.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        self.file(name, |out| {
            out.write_all(bytes)
                .map_err(|error| Error::io(&path, &error))
        })
    }

    /// Makes a file of the name and the bytes of another one.
    pub fn copy(&mut self, from: &Path) -> Result<()> {
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(from).map_err(|error| Error::io(from, &error))?;
        self.bytes(&name, &bytes)
    }

    /// Takes the files that others put into the folder into the manifest, and syncs them.
    pub fn adopt(&mut self) -> Result<()> {
        for path in list(&self.path)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if self.manifest.has(&name) {
                continue;
            }
            let (bytes, hash) = hash_file(&path)?;
            sync(&path)?;
            self.manifest.add(&name, bytes, hash);
        }
        Ok(())
    }

    /// Writes the manifest of the files so far, after which there may be no others.
    pub fn seal(&mut self) -> Result<()> {
        let text = self.manifest.to_json()?;
        self.bytes(MANIFEST, text.as_bytes())?;
        sync(&self.path)
    }

    /// Gives the folder its name, which no folder with files in it may have.
    pub fn settle(self, target: &Path) -> Result<()> {
        // Goes only if it is empty, which not every system lets a rename replace.
        let _ = fs::remove_dir(target);
        rename(&self.path, target)?;
        let synced = sync(parent(target));
        if synced.is_err() {
            // A name that may not last is none.
            let _ = fs::rename(target, &self.path);
        }
        synced
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A file, hashed while it is written.
struct Hashing {
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The length of a file and the SHA-256, in hex, of what is in it.
pub(super) fn hash_file(path: &Path) -> Result<(u64, String)> {
    let io = |error: io::Error| Error::io(path, &error);
    let mut file = File::open(path).map_err(io)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece).map_err(io)?;
        if read == 0 {
            return Ok((bytes, format!("{:x}", hasher.finalize())));
        }
        hasher.update(&piece[..read]);
        bytes += read as u64;
    }
}

/// The folder that a path lies in.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::io(to, &error))
}

/// What is in a folder, sorted by name.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |error: io::Error| Error::io(folder, &error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        paths.push(entry.map_err(io)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Brings a file or the names of a folder to the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io(path, &error))?;
    file.sync_all().map_err(|error| Error::io(path, &error))
}
