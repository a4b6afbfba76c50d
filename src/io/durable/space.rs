//! Free disk space.

use std::path::Path;

use crate::error::{Error, Result};

/// Free bytes for this user on the file system of a directory, which need not be there yet; `None` where
/// the system does not tell.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|path| path.exists());
    let system = rustix::fs::statvfs(there.unwrap_or(Path::new("."))).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

/// Free bytes on the file system of a directory: unknown on this system.
#[cfg(not(unix))]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// Fails if `bytes` do not fit on the file system of `folder`; `what` is named in the error.
pub fn check_space(folder: &Path, bytes: u64, what: &str) -> Result<()> {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    match free_bytes(folder) {
        Some(free) if free < bytes => Err(Error::failed(format!(
            "{}: {what} takes {:.2} GiB, and the disk has {:.2} GiB left",
            folder.display(),
            gib(bytes),
            gib(free)
        ))),
        _ => Ok(()),
    }
}
