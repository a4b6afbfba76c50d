//! Directories and their entries.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The directory that a path lies in.
pub fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Renames a file or a directory; atomic within one file system. [`sync`] the directory to keep the
/// new name.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::io(to, &error))
}

/// The paths of a directory's entries, sorted by name.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let io = |error: std::io::Error| Error::io(directory, &error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        paths.push(entry.map_err(io)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The files in a directory and in those below it, relative to it, sorted.
pub fn list_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in list(directory)? {
        let name = PathBuf::from(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => files.extend(list_files(&path)?.iter().map(|file| name.join(file))),
            false => files.push(name),
        }
    }
    Ok(files)
}

/// Flushes a file's contents, or the names of a directory's entries, to disk.
pub fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io(path, &error))?;
    file.sync_all().map_err(|error| Error::io(path, &error))
}
