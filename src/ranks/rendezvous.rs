//! How processes that have no MPI get NCCL's id from the first one: by a file.
//!
//! *Why* a file: the store of torchrun speaks a protocol that is documented nowhere. NCCL's own way over the
//! network is taken where the user names an address for it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::{Environment, Launch};
use crate::error::{Error, Result};
use crate::io::cache;
use crate::io::lock::host;
use crate::kernels::ranks::nccl::{Id, Nccl};

/// NCCL's own: `host:port` of the first process, which all of them know.
const ADDRESS: &str = "NCCL_COMM_ID";

/// The first process writes its file anew after this time, until all have met: the others take what is written
/// after they have come, and no file of an earlier launch, whatever clocks say.
const ANEW: Duration = Duration::from_millis(500);

const NAP: Duration = Duration::from_millis(10);

/// The file of the first process, which is written until this is dropped, when all have met, and then removed.
#[derive(Debug)]
pub struct Announced {
    path: PathBuf,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Announced {
    fn begin(path: PathBuf, id: Id) -> io::Result<Self> {
        announce(&path, id)?;
        let (stop, stopped) = channel();
        let at = path.clone();
        let write = move || {
            while stopped.recv_timeout(ANEW) == Err(RecvTimeoutError::Timeout) {
                // What cannot be written now may be the next time; the others wait as long as their limit.
                let _ = announce(&at, id);
            }
        };
        let thread = Some(std::thread::Builder::new().spawn(write)?);
        Ok(Self { path, stop, thread })
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes the file under another name, and renames it: whoever reads it has all of it.
fn announce(path: &Path, id: Id) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let file = tempfile::NamedTempFile::new_in(directory)?;
    fs::write(file.path(), id.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

/// The id that the first process of a launch makes.
///
/// # Errors
/// If the file cannot be written, or has not come within `limit`.
pub fn id(
    environment: &Environment,
    launch: &Launch,
    nccl: &Nccl,
    limit: Duration,
) -> Result<(Id, Option<Announced>)> {
    if environment.get(ADDRESS).is_some_and(|at| !at.is_empty()) {
        return Ok((nccl.unique_id()?, None));
    }
    let root = cache::root().ok_or_else(|| {
        Error::input("there is no cache directory, in which processes find each other")
            .hint("set XDG_CACHE_HOME")
    })?;
    let path = root
        .join("expo/ranks")
        .join(name(environment, launch, &host()));
    match launch.rank {
        0 => {
            let id = nccl.unique_id()?;
            let announced = Announced::begin(path.clone(), id);
            let failed = |error: io::Error| Error::failed(error.to_string()).at(path.display());
            Ok((id, Some(announced.map_err(failed)?)))
        }
        _ => Ok((wait(&path, limit)?, None)),
    }
}

/// A name that no other launch has at the same time: of the address of its first process, and of `host` where all are
/// there.
fn name(environment: &Environment, launch: &Launch, host: &str) -> String {
    let value = |name: &str| environment.get(name).map_or("", String::as_str);
    let on_one_host = value("LOCAL_WORLD_SIZE") == value("WORLD_SIZE");
    let words = format!(
        "{}-{}-{}-{}-{}",
        value("MASTER_ADDR"),
        value("MASTER_PORT"),
        if on_one_host { host } else { "" },
        launch.id.as_deref().unwrap_or_default(),
        launch.size,
    );
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    let plain = |c: char| if is_plain(c) { c } else { '_' };
    words.chars().map(plain).collect()
}

fn wait(path: &Path, limit: Duration) -> Result<Id> {
    let changed = || fs::metadata(path).and_then(|about| about.modified()).ok();
    let (since, before) = (Instant::now(), changed());
    loop {
        if changed().is_some_and(|at| Some(at) != before)
            && let Ok(bytes) = fs::read(path)
        {
            return Id::from_bytes(&bytes).map_err(|error| error.at(path.display()));
        }
        if since.elapsed() >= limit {
            return Err(Error::rank(format!(
                "rank 0 has not written {}; hosts without a common cache directory need {ADDRESS}=host:port of \
                 rank 0, with a port that is free",
                path.display()
            )));
        }
        sleep(NAP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Launcher;

    #[test]
    fn launches_have_names_of_their_own() {
        let launch = Launch {
            rank: 0,
            size: 4,
            local: 0,
            id: Some("none.1".into()),
            launcher: Launcher::Torchrun,
        };
        let of = |pairs: &[(&str, &str)]| -> Environment {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(own).collect()
        };
        let mut variables = vec![
            ("MASTER_ADDR", "a/b"),
            ("MASTER_PORT", "29500"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_WORLD_SIZE", "4"),
        ];
        assert_eq!(name(&of(&variables), &launch, "h"), "a_b-29500-h-none.1-4");
        variables[3].1 = "2";
        assert_eq!(name(&of(&variables), &launch, "h"), "a_b-29500--none.1-4");
    }

    #[test]
    fn a_file_of_an_earlier_launch_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ranks/id");
        let id = |byte| Id::from_bytes(&[byte; Id::BYTES]).unwrap();
        announce(&path, id(1)).unwrap();
        let limit = Duration::from_millis(50);
        let error = wait(&path, limit).unwrap_err();
        assert_eq!(error.exit_code(), 75);
        let text = error.to_string();
        assert!(text.contains("NCCL_COMM_ID=host:port"), "{text}");
        // Of one that has come before, and goes on writing.
        let announced = Announced::begin(path.clone(), id(2)).unwrap();
        assert_eq!(wait(&path, Duration::from_secs(60)).unwrap(), id(2));
        drop(announced);
        assert!(!path.exists());
    }
}
