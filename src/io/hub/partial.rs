//! Files on their way into the cache.
//!
//! Hides how a download resumes where it was cut, and how processes that want the same file share one.
//!
//! *Why*: the bytes of a file have a name of their own until all of them are there, which stays when a
//! process dies, so the next one resumes. Only one at a time writes there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Method, header};

use super::cached::is_sum;
use super::client::{Asked, Client};
use super::failure::{Answer, Failure};
use crate::io::lock::try_lock;

/// The directory of partial downloads, beside the blobs.
pub(super) const STAGING: &str = ".downloading";
/// How often is looked whether another process is done.
const LOOK: Duration = Duration::from_millis(100);

/// A file that is being downloaded, of this process alone.
pub(super) struct Part {
    path: PathBuf,
    lock: PathBuf,
    _file: File,
    /// Whether its bytes are known by their sum.
    has_sum: bool,
}

impl Part {
    /// Waits until no other process downloads the file of this etag.
    pub(super) fn take(staging: &Path, etag: &str, longest: Duration) -> Answer<Self> {
        let path = staging.join(format!("{etag}.part"));
        let lock = staging.join(format!("{etag}.lock"));
        let start = Instant::now();
        loop {
            if let Some(file) = taken(staging, &lock).map_err(Failure::local(&lock))? {
                return Ok(Self {
                    path,
                    lock,
                    _file: file,
                    has_sum: is_sum(etag),
                });
            }
            if start.elapsed() >= longest {
                return Err(Failure::Busy);
            }
            std::thread::sleep(LOOK.min(longest));
        }
    }

    /// Where the bytes are.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Downloads what is missing of a file of `size` bytes; `report` is told how many are here.
    pub(super) fn download(
        &self,
        client: &Client,
        path: &str,
        size: u64,
        report: &mut dyn FnMut(u64),
    ) -> Answer<()> {
        let here = Failure::local(&self.path);
        let mut options = OpenOptions::new();
        let options = options.append(true).create(true);
        let file = options.open(&self.path).map_err(&here)?;
        let mut start = file.metadata().map_err(&here)?.len();
        if start > size || (start == size && !self.has_sum) {
            file.set_len(0).map_err(&here)?;
            start = 0;
        }
        report(start);
        if start == size && self.has_sum {
            // Whoever brought the last byte ended before it was looked at.
            return Ok(());
        }
        let asked = Asked {
            method: Method::GET,
            path,
            range: (start > 0).then(|| format!("bytes={start}-")),
            silence: client.settings.patience.silence,
            bytes: size,
        };
        let response = match client.ask(&asked, &mut |_| false) {
            Err(Failure::Status { code: 416, .. }) if start > 0 => {
                // It has no such place, so what is here is of something else.
                file.set_len(0).map_err(&here)?;
                let why = "the server does not resume the download where it was cut".into();
                return Err(Failure::Broken { why, grown: false });
            }
            answer => answer?,
        };
        if start > 0 && (response.status() != 206 || !begins_at(response.headers(), start)) {
            file.set_len(0).map_err(&here)?;
            if response.status() == 206 {
                let why = "the server resumes the download at another place".into();
                return Err(Failure::Broken { why, grown: false });
            }
            start = 0;
            report(start);
        }
        let mut done = start;
        let received = receive(
            client,
            client.body(response),
            &file,
            size,
            &mut done,
            report,
        );
        match received {
            Err(Received::Local(error)) => Err(here(error)),
            Err(Received::TooLong) => {
                file.set_len(0).map_err(&here)?;
                Err(Failure::odd(format!(
                    "more than the {size} bytes that it has"
                )))
            }
            Err(Received::Remote(failure)) => {
                let grown = done - start >= client.settings.patience.least;
                Err(match failure {
                    Failure::Late(why) if grown => Failure::Broken { why, grown },
                    Failure::Broken { why, .. } => Failure::Broken { why, grown },
                    other => other,
                })
            }
            // Before it has its name: a name without the bytes would outlast a power cut.
            Ok(()) => file.sync_all().map_err(here),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // While it is locked, so that nobody else has it.
        #[cfg(unix)]
        let _ = fs::remove_file(&self.lock);
        #[cfg(not(unix))]
        let _ = &self.lock;
    }
}

enum Received {
    Local(io::Error),
    Remote(Failure),
    TooLong,
}

fn receive(
    client: &Client,
    mut body: impl Read,
    mut file: &File,
    size: u64,
    done: &mut u64,
    report: &mut dyn FnMut(u64),
) -> std::result::Result<(), Received> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Received::Remote(client.failure_of_body(error))),
        };
        if read as u64 > size - *done {
            return Err(Received::TooLong);
        }
        file.write_all(&buffer[..read]).map_err(Received::Local)?;
        *done += read as u64;
        report(*done);
    }
    match *done == size {
        true => Ok(()),
        false => Err(Received::Remote(Failure::Broken {
            why: "the file arrived incomplete".into(),
            grown: false,
        })),
    }
}

/// Whether a part of an answer is the one that was asked for; where it does not say, the sum of the
/// file tells.
fn begins_at(headers: &HeaderMap, start: u64) -> bool {
    let range = headers
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    first.is_none_or(|first| first.trim().parse() == Ok(start))
}

/// The lock file, locked and still of that name; `None` if another process has it.
fn taken(staging: &Path, lock: &Path) -> io::Result<Option<File>> {
    match fs::create_dir_all(staging) {
        // It was there, empty, and another process has just removed it.
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists
                && !fs::metadata(staging).is_ok_and(|found| !found.is_dir()) =>
        {
            return Ok(None);
        }
        made => made?,
    }
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(false).open(lock);
    let file = match opened {
        // Another process has just removed the directory, which was empty.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    Ok((try_lock(&file)? && is_at(&file, lock)).then_some(file))
}

/// Whether a file is the one of that name: who is done removes the file that others wait for.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    let (own, named) = (file.metadata().map(place), fs::metadata(path).map(place));
    own.is_ok_and(|own| named.is_ok_and(|named| own == named))
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_part_and_nothing_stays_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let staging = directory.path().join(STAGING);
        let short = Duration::from_millis(20);
        let first = Part::take(&staging, "etag", short).unwrap();
        assert!(matches!(
            Part::take(&staging, "etag", short),
            Err(Failure::Busy)
        ));
        Part::take(&staging, "other", short).unwrap();
        std::thread::scope(|scope| {
            let wait = || Part::take(&staging, "etag", Duration::from_secs(60));
            let waiting: Vec<_> = (0..3).map(|_| scope.spawn(move || drop(wait()))).collect();
            drop(first);
            waiting.into_iter().for_each(|one| one.join().unwrap());
        });
        fs::remove_dir(&staging).unwrap();
    }
}
