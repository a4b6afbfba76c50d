//! The threads of the process: how many there are, and what happens where they cannot be started.
//!
//! *Why*: rayon starts its threads at first use, and panics where the system refuses one (a limit of
//! processes, of a container or of memory). Here they are started before that, and those that start are
//! used. No result depends on how many there are.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rayon::{ThreadBuilder, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// What sets the number of threads; unset, blank or 0: one per core.
pub const VARIABLE: &str = "RAYON_NUM_THREADS";

/// More threads than cores cost memory and time. So many per core are allowed, and always
/// [`ALWAYS_ALLOWED`].
const MOST_PER_CORE: usize = 4;
const ALWAYS_ALLOWED: usize = 16;

/// How many threads were asked for, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// By [`VARIABLE`], or the cores.
    pub wanted: usize,
    /// The most that this machine allows.
    pub allowed: usize,
    /// That work; at least 1, which may be the calling thread.
    pub started: usize,
}

/// How many threads work is shared among.
pub fn count() -> usize {
    rayon::current_num_threads()
}

/// Starts the threads that work is shared among, once per process.
///
/// # Errors
/// If [`VARIABLE`] is not a number, or threads were started before.
pub fn start() -> Result<Threads> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let allowed = (MOST_PER_CORE * cores).max(ALWAYS_ALLOWED);
    let wanted = wanted(std::env::var_os(VARIABLE), cores)?;
    let waiting: Vec<Sender<ThreadBuilder>> =
        (0..wanted.min(allowed)).map_while(|_| spawn()).collect();
    let started = waiting.len().max(1);
    let pool = ThreadPoolBuilder::new().num_threads(started);
    let built = if waiting.is_empty() {
        pool.use_current_thread().build_global()
    } else {
        let waiting = Mutex::new(waiting);
        pool.spawn_handler(|worker| {
            let thread = waiting.lock().ok().and_then(|mut waiting| waiting.pop());
            let sent = thread.and_then(|thread| thread.send(worker).ok());
            sent.ok_or_else(|| std::io::ErrorKind::WouldBlock.into())
        })
        .build_global()
    };
    built.map_err(|error| Error::failed(format!("threads: {error}")))?;
    Ok(Threads {
        wanted,
        allowed,
        started,
    })
}

/// A thread that waits for its part in the pool, unless the system refuses it.
fn spawn() -> Option<Sender<ThreadBuilder>> {
    let (send, receive) = channel::<ThreadBuilder>();
    let work = move || {
        if let Ok(worker) = receive.recv() {
            worker.run();
        }
    };
    thread::Builder::new().spawn(work).ok().map(|_| send)
}

fn wanted(variable: Option<std::ffi::OsString>, cores: usize) -> Result<usize> {
    let text = variable.unwrap_or_default();
    let text = text.to_string_lossy();
    match text.trim() {
        "" => Ok(cores),
        number if number.bytes().all(|digit| digit.is_ascii_digit()) => {
            // A number that does not fit is more than any machine allows.
            match number.parse().unwrap_or(usize::MAX) {
                0 => Ok(cores),
                threads => Ok(threads),
            }
        }
        other => Err(Error::input(format!("{VARIABLE} is {other:?}"))
            .hint("expected a whole number of threads, or 0 for one per core")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_or_the_cores_say_how_many_threads_are_wanted() {
        let of = |text: &str| wanted(Some(text.into()), 3);
        assert_eq!(wanted(None, 3), Ok(3));
        assert_eq!(of(""), Ok(3));
        assert_eq!(of("0"), Ok(3));
        assert_eq!(of(" 8 "), Ok(8));
        assert_eq!(of("99999999999999999999999"), Ok(usize::MAX));
        for wrong in ["-1", "two", "1.5", "+3"] {
            let error = of(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }
}
