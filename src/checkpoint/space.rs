//! Free space, looked at before it is needed.

use std::path::Path;

use crate::error::{Error, Result};

/// The bytes that the file system of a folder still has for this user, where the system tells.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(folder).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

/// The bytes that the file system of a folder still has: this system does not tell.
#[cfg(not(unix))]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// Refuses to begin what would not fit.
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
