//! Durable writes: a file or directory that has its final name is complete and on disk.
//!
//! Hides temporary names, `fsync` and the atomic rename.

mod directory;
mod hash;
mod json;
mod manifest;
mod plain;
mod space;
mod staging;

use std::fs;
use std::io::Write;
use std::path::Path;

pub use self::directory::{list, list_files, parent, rename, sync};
pub use self::json::{json_line, json_text};
pub use self::manifest::{MANIFEST, Manifest, verify};
pub use self::plain::{check_no_link, check_plain, open_plain};
pub use self::space::{check_space, free_bytes};
pub use self::staging::{StagedFile, Staging, TEMPORARY};
use crate::error::{Error, Result};

/// Refuses a target that exists and is not an empty directory.
pub fn check_new(target: &Path) -> Result<()> {
    let empty = || target.is_dir() && list(target).is_ok_and(|files| files.is_empty());
    if target.exists() && !empty() {
        return Err(Error::input("already exists")
            .at(target.display())
            .hint("name a new directory"));
    }
    Ok(())
}

/// Refuses the path of a file that cannot be made: a directory, or a path below a file.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::input("is a directory, not a file").at(path.display()));
    }
    match path.ancestors().skip(1).find(|above| above.exists()) {
        Some(above) if !above.is_dir() => {
            Err(Error::input("is not a directory").at(above.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a directory, with those above it, and syncs its name.
pub fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io(path, &error))?;
    sync(parent(path))
}

/// Makes the directory that a path lies in, where there is none.
pub fn create_parent(path: &Path) -> Result<()> {
    let directory = parent(path);
    match directory.is_dir() {
        true => Ok(()),
        false => create_directory(directory),
    }
}

/// Replaces the file at `path` by `contents`, atomically.
///
/// # Errors
/// As of [`write_with`].
pub fn write_file(path: &Path, contents: &[u8]) -> Result<()> {
    let io = |error| Error::io(path, &error);
    write_with(path, |file| file.write_all(contents).map_err(io))
}

/// Replaces the file at `path` by what `write` writes, atomically. Its directory must exist.
///
/// # Errors
/// Of `write` and of the file system; the old file, if any, is then untouched. If something else than a
/// [plain file](check_plain) is there.
pub fn write_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    check_plain(path)?;
    let mut staging = Staging::beside(path)?;
    staging.file("file", write)?;
    check_plain(path)?;
    rename(&staging.path().join("file"), path)?;
    sync(parent(path))
}

/// Removes a file, if it exists.
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, &error)),
        _ => Ok(()),
    }
}
