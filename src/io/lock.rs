//! File locks, and one owner per run directory.
//!
//! *Why*: two processes that write the same directory destroy both runs. The system releases its lock
//! when the process ends, however it ends, so a stale lock cannot exist. On network file systems without
//! working locks the last process to arrive writes its token into the file, and the others stop at
//! their next save.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::durable::open_plain;
use crate::error::{Error, Result};

/// The lock file of a run directory. It stays after the run; only the system's lock on it counts.
pub const LOCK: &str = "run.lock";

/// The process that owns a directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Owner {
    host: String,
    pid: u32,
    /// Seconds since 1970.
    started: u64,
    /// Unique to this process.
    token: String,
}

/// The exclusive right to write to a run directory, held until dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    owner: Owner,
    _file: File,
}

impl Lock {
    /// Locks a directory, which must exist.
    ///
    /// # Errors
    /// Names the owner if another process holds the lock.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let io = |error: io::Error| Error::io(&path, &error);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = open_plain(&path, options)?;
        let mut taken = try_lock(&file);
        if matches!(taken, Ok(false)) {
            // `is_locked` of another process holds it for a moment, too.
            std::thread::sleep(Duration::from_millis(50));
            taken = try_lock(&file);
        }
        match taken {
            // Locked, or a file system without locks, where the token must suffice.
            Ok(true) => {}
            Ok(false) => {
                let owner = match owner_of(&path) {
                    Some(owner) => format!("process {} on {}", owner.pid, owner.host),
                    None => "another process".into(),
                };
                return Err(Error::input(format!("{owner} is using this directory"))
                    .at(folder.display())
                    .hint("wait for it to end, or choose another run.output_dir"));
            }
            Err(error) => return Err(io(error)),
        }
        let owner = Owner::new();
        let text = serde_json::to_string(&owner).map_err(|e| Error::failed(e.to_string()))? + "\n";
        file.set_len(0).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(Self {
            path,
            owner,
            _file: file,
        })
    }

    /// Whether another process owns the directory now.
    pub fn is_taken_over(&self) -> bool {
        let owner = self.owner_now();
        owner.is_some_and(|owner| owner.token != self.owner.token)
    }

    fn owner_now(&self) -> Option<Owner> {
        let file = open_plain(&self.path, OpenOptions::new().read(true));
        file.ok().and_then(|mut file| read(&mut file))
    }

    /// Checks that this process still owns the directory.
    ///
    /// # Errors
    /// If another process has taken over, or the lock file is gone.
    pub fn check(&self) -> Result<()> {
        match self.owner_now() {
            Some(owner) if owner.token == self.owner.token => Ok(()),
            Some(owner) => Err(Error::failed(format!(
                "{}: process {} on {} has taken the run over; nothing was written",
                self.path.display(),
                owner.pid,
                owner.host
            ))),
            None => Err(Error::failed(format!(
                "{}: the lock is gone: another process may own the run; nothing was written",
                self.path.display()
            ))),
        }
    }
}

/// Whether a process holds the lock of a run directory; `None` if that cannot be told.
pub fn is_locked(folder: &Path) -> Option<bool> {
    let file = open_plain(&folder.join(LOCK), OpenOptions::new().read(true)).ok()?;
    match file.try_lock_shared() {
        Ok(()) => Some(false),
        Err(TryLockError::WouldBlock) => Some(true),
        Err(TryLockError::Error(_)) => None,
    }
}

/// Tries to lock a file; false if another process holds the lock. True on a file system without locks.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if unsupported(&error) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Waits for the lock of a file; returns at once on a file system without locks.
pub fn lock(file: &File) -> io::Result<()> {
    match file.lock() {
        Err(error) if unsupported(&error) => Ok(()),
        done => done,
    }
}

fn unsupported(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error()) {
        return true;
    }
    error.kind() == io::ErrorKind::Unsupported
}

/// The owner of a locked directory. One that locked it a moment ago may not have written its token yet;
/// until then the file is empty or names the previous owner.
fn owner_of(path: &Path) -> Option<Owner> {
    (0..10).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let file = open_plain(path, OpenOptions::new().read(true));
        file.ok().and_then(|mut file| read(&mut file))
    })
}

fn read(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

impl Owner {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default();
        let (host, pid) = (host(), std::process::id());
        Self {
            token: format!("{host}-{pid}-{}", since.as_nanos()),
            host,
            pid,
            started: since.as_secs(),
        }
    }
}

/// The name of this machine.
#[cfg(unix)]
pub fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// What stands for the name of this machine.
#[cfg(not(unix))]
pub fn host() -> String {
    "this machine".into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_of_many_locks_the_directory_and_the_next_one_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let locks: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Lock::take(path))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = locks.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7));
        for error in lost {
            let message = error.unwrap_err().to_string();
            assert!(message.contains("is using this directory"), "{message}");
        }
        drop(won);
        Lock::take(path).unwrap().check().unwrap();
    }

    #[test]
    fn a_reader_sees_whether_the_directory_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(is_locked(folder.path()), None);
        let lock = Lock::take(folder.path()).unwrap();
        assert_eq!(is_locked(folder.path()), Some(true));
        drop(lock);
        assert_eq!(is_locked(folder.path()), Some(false));
    }

    #[test]
    fn an_owner_notices_that_another_took_over() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        let other = Owner {
            host: "elsewhere".into(),
            ..Owner::new()
        };
        let other = serde_json::to_string(&other).unwrap();
        fs::write(folder.path().join(LOCK), other).unwrap();
        let message = lock.check().unwrap_err().to_string();
        assert!(
            message.contains("on elsewhere has taken the run over"),
            "{message}"
        );
        fs::remove_file(folder.path().join(LOCK)).unwrap();
        assert!(lock.check().is_err());
    }
}
