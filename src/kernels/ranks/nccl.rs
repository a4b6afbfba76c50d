//! The calls into NCCL.
//!
//! Hides a library that is opened at run time, and its communicator, which never blocks: every call is polled until
//! the time limit, so that a rank that is missing ends the others.
//!
//! *Why* not candle's feature for it: the program would be linked to the library, and not start without it on
//! one GPU. *Why* sends and receives, not the library's reductions: their order depends on algorithm and
//! size.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use super::library::{Shared, functions};
use crate::error::{Error, Result};

/// Communicators that do not block are of this version and later.
const OLDEST: (c_int, &str) = (21_400, "2.14");

/// What calls return: they succeeded, or another thread of the library goes on with it.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;

/// `ncclUint8`.
const BYTES: c_int = 1;

const NAP: Duration = Duration::from_micros(50);
/// Polls before the first nap.
const SPINS: u32 = 2000;

type Communicator = *mut c_void;
type Stream = *mut c_void;

/// By which the ranks of one communicator find each other: `ncclUniqueId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Id([u8; Id::BYTES]);

impl Id {
    /// Its size.
    pub const BYTES: usize = 128;

    /// # Errors
    /// If it has another size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.try_into();
        bytes
            .map(Self)
            .map_err(|_| Error::failed("an id of NCCL of another size"))
    }

    /// Its bytes, on their way to the other ranks.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `ncclConfig_t` of version 2.14, which later libraries take as it is.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
}

functions! {
    version: c"ncclGetVersion" (*mut c_int) -> c_int;
    unique_id: c"ncclGetUniqueId" (*mut Id) -> c_int;
    init: c"ncclCommInitRankConfig" (*mut Communicator, c_int, Id, c_int, *mut Config) -> c_int;
    group_start: c"ncclGroupStart" () -> c_int;
    group_end: c"ncclGroupEnd" () -> c_int;
    send: c"ncclSend" (*const c_void, usize, c_int, c_int, Communicator, Stream) -> c_int;
    receive: c"ncclRecv" (*mut c_void, usize, c_int, c_int, Communicator, Stream) -> c_int;
    state: c"ncclCommGetAsyncError" (Communicator, *mut c_int) -> c_int;
    finalize: c"ncclCommFinalize" (Communicator) -> c_int;
    destroy: c"ncclCommDestroy" (Communicator) -> c_int;
    abort: c"ncclCommAbort" (Communicator) -> c_int;
    error_string: c"ncclGetErrorString" (c_int) -> *const c_char;
    last_error: c"ncclGetLastError" (Communicator) -> *const c_char;
}

/// NCCL, open.
#[derive(Debug)]
pub struct Nccl {
    table: Table,
    name: String,
    version: c_int,
}

impl Nccl {
    /// Opens the first of these files, by path or by name.
    ///
    /// # Errors
    /// With what the loader said of each of them, or if the library is too old.
    pub fn open(names: &[String]) -> Result<Self> {
        let mut failures = Vec::new();
        for name in names {
            match Shared::open(name) {
                Ok(library) => return Self::of(&library),
                Err(failure) => failures.push(failure),
            }
        }
        let failures = failures.join("; ");
        Err(Error::input(format!("no NCCL: {failures}")))
    }

    fn of(library: &Shared) -> Result<Self> {
        let table = Table::load(library)?;
        let mut version = 0;
        // SAFETY: the number is there to be written.
        let code = unsafe { (table.version)(&raw mut version) };
        let name = library.name.clone();
        let nccl = Self {
            table,
            name,
            version,
        };
        nccl.check("ncclGetVersion", code)?;
        let (oldest, words) = OLDEST;
        match version >= oldest {
            true => Ok(nccl),
            false => Err(
                Error::input(format!("{} is too old", nccl.words())).hint(format!(
                    "valid: version {words} or later, such as that of CUDA 13"
                )),
            ),
        }
    }

    /// E.g. `NCCL 2.28.3 (libnccl.so.2)`.
    pub fn words(&self) -> String {
        let (version, name) = (self.version, &self.name);
        let (major, rest) = (version / 10_000, version % 10_000);
        format!("NCCL {major}.{}.{} ({name})", rest / 100, rest % 100)
    }

    /// The id of a new communicator, which all its ranks need.
    ///
    /// # Errors
    /// If NCCL finds no network interface.
    pub fn unique_id(&self) -> Result<Id> {
        let mut id = Id([0; Id::BYTES]);
        // SAFETY: the id is there to be written.
        let code = unsafe { (self.table.unique_id)(&raw mut id) };
        self.check("ncclGetUniqueId", code)?;
        Ok(id)
    }

    /// Whether a call succeeded, or goes on.
    fn check(&self, call: &str, code: c_int) -> Result<()> {
        match code {
            SUCCESS | IN_PROGRESS => Ok(()),
            code => Err(self.error(call, code, null_mut())),
        }
    }

    fn error(&self, call: &str, code: c_int, communicator: Communicator) -> Error {
        // SAFETY: every number is allowed.
        let short = text(unsafe { (self.table.error_string)(code) });
        // SAFETY: a communicator, or null for the last error of all.
        let long = text(unsafe { (self.table.last_error)(communicator) });
        match long.is_empty() {
            true => Error::rank(format!("{call}: {short}")),
            false => Error::rank(format!("{call}: {short}: {long}")),
        }
    }
}

/// Bytes between a GPU of this process and that of another rank.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// The other rank.
    pub rank: usize,
    /// Where they are on this process's GPU, or where they go.
    pub address: u64,
    /// How many.
    pub bytes: usize,
    /// Whether they go to the other rank.
    pub sends: bool,
}

/// The GPUs of several ranks, seen from one. All ranks make the same calls in the same order.
#[derive(Debug)]
pub(super) struct World {
    nccl: Nccl,
    communicator: Communicator,
}

// SAFETY: NCCL allows a communicator to be used by any thread, one at a time.
unsafe impl Send for World {}
// SAFETY: `abort` alone is called beside other calls, which NCCL allows.
unsafe impl Sync for World {}

impl World {
    /// Connects the ranks that have this id, each with the GPU that is bound to the calling thread.
    ///
    /// # Errors
    /// If NCCL fails, or not all ranks come within `limit`.
    pub(super) fn connect(
        nccl: Nccl,
        id: Id,
        (rank, size): (usize, usize),
        limit: Duration,
    ) -> Result<Self> {
        let mut config = Config {
            size: size_of::<Config>(),
            magic: 0xcafe_beef,
            version: OLDEST.0.unsigned_abs(),
            blocking: 0,
        };
        let mut communicator = null_mut();
        let (rank, size) = (rank as c_int, size as c_int);
        // SAFETY: the communicator is there to be written; the configuration is read during the call.
        let code =
            unsafe { (nccl.table.init)(&raw mut communicator, size, id, rank, &raw mut config) };
        nccl.check("ncclCommInitRankConfig", code)?;
        let world = Self { nccl, communicator };
        world.settle("ncclCommInitRankConfig", limit)?;
        Ok(world)
    }

    pub(super) fn words(&self) -> String {
        self.nccl.words()
    }

    /// Gives transfers to the stream, which does all of them at once; in the order of the list between two ranks.
    /// Returns when the stream has them, not when they are done.
    ///
    /// # Safety
    /// The memory is there until the stream has done them, and `stream` is of the GPU that this thread has bound
    /// and that the communicator was made for.
    pub(super) unsafe fn begin(
        &self,
        transfers: &[Transfer],
        stream: u64,
        limit: Duration,
    ) -> Result<()> {
        let table = &self.nccl.table;
        // SAFETY: without arguments.
        let code = unsafe { (table.group_start)() };
        self.nccl.check("ncclGroupStart", code)?;
        let mut failed = None;
        for transfer in transfers.iter().filter(|transfer| transfer.bytes > 0) {
            let Transfer {
                rank,
                address,
                bytes,
                sends,
            } = *transfer;
            let (rank, at) = (rank as c_int, address as *mut c_void);
            let (communicator, stream) = (self.communicator, stream as Stream);
            // SAFETY: the caller's.
            let (call, code) = unsafe {
                match sends {
                    true => (
                        "ncclSend",
                        (table.send)(at, bytes, BYTES, rank, communicator, stream),
                    ),
                    false => (
                        "ncclRecv",
                        (table.receive)(at, bytes, BYTES, rank, communicator, stream),
                    ),
                }
            };
            if let Err(error) = self.nccl.check(call, code) {
                failed.get_or_insert(error);
            }
        }
        // A group that was begun is ended, whatever happened in it.
        // SAFETY: without arguments.
        let code = unsafe { (table.group_end)() };
        match failed {
            Some(error) => Err(error),
            None => {
                self.nccl.check("ncclGroupEnd", code)?;
                self.settle("ncclGroupEnd", limit)
            }
        }
    }

    /// Polls until the last call has come to its end.
    fn settle(&self, call: &str, limit: Duration) -> Result<()> {
        poll(limit, || match self.state()? {
            SUCCESS => Ok(true),
            IN_PROGRESS => Ok(false),
            code => Err(self.nccl.error(call, code, self.communicator)),
        })
    }

    /// Polls until a stream is through, as `is_done` says. The limit is for all that it was given.
    pub(super) fn wait(&self, limit: Duration, is_done: impl Fn() -> Result<bool>) -> Result<()> {
        poll(limit, || match self.state()? {
            SUCCESS | IN_PROGRESS => is_done(),
            code => Err(self.nccl.error("an exchange", code, self.communicator)),
        })
    }

    fn state(&self) -> Result<c_int> {
        let mut state = SUCCESS;
        // SAFETY: the communicator is one, and the number is there to be written.
        let code = unsafe { (self.nccl.table.state)(self.communicator, &raw mut state) };
        self.nccl.check("ncclCommGetAsyncError", code)?;
        Ok(state)
    }

    /// Ends the communicator when all ranks have done what is under way. No call may follow.
    pub(super) fn finalize(&self, limit: Duration) -> Result<()> {
        // SAFETY: the communicator is one, and the caller ends it once.
        let code = unsafe { (self.nccl.table.finalize)(self.communicator) };
        self.nccl.check("ncclCommFinalize", code)?;
        self.settle("ncclCommFinalize", limit)?;
        // SAFETY: as above.
        let code = unsafe { (self.nccl.table.destroy)(self.communicator) };
        self.nccl.check("ncclCommDestroy", code)
    }

    /// Ends what is under way, here and with time at the other ranks. No call may follow.
    pub(super) fn abort(&self) {
        // SAFETY: the communicator is one, and the process ends after this.
        unsafe { (self.nccl.table.abort)(self.communicator) };
    }
}

fn poll(limit: Duration, mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
    let (since, mut polls) = (Instant::now(), 0);
    while !is_done()? {
        if since.elapsed() >= limit {
            return Err(super::late::late(limit));
        }
        polls += 1;
        match polls > SPINS {
            true => std::thread::sleep(NAP),
            false => std::thread::yield_now(),
        }
    }
    Ok(())
}

/// A text of the library's own.
fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: a text of NCCL that ends with 0, and is copied at once.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// NVIDIA's own library, which needs no GPU for this.
    #[test]
    fn nccl_itself_has_all_that_is_called() {
        let Ok(name) = std::env::var("EXPO_TEST_NCCL") else {
            let _ = std::io::stderr().write_all(b"skipped: EXPO_TEST_NCCL names no NCCL\n");
            return;
        };
        let nccl = Nccl::open(&["/nowhere/libnccl.so".to_owned(), name.clone()]).unwrap();
        assert!(nccl.words().starts_with("NCCL 2."), "{}", nccl.words());
        assert!(nccl.words().ends_with(&format!(" ({name})")));
        let id = nccl.unique_id().unwrap();
        assert_ne!(id, nccl.unique_id().unwrap());
        assert_eq!(Id::from_bytes(id.as_bytes()).unwrap(), id);
        let error = nccl.error("ncclSend", 4, null_mut()).to_string();
        assert!(error.starts_with("ncclSend: invalid argument"), "{error}");
    }

    #[test]
    fn what_is_no_nccl_is_refused() {
        let error = Nccl::open(&["/nowhere/libnccl.so".to_owned()]).unwrap_err();
        assert!(error.to_string().starts_with("no NCCL: "), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(Id::from_bytes(&[0; 7]).is_err());
    }

    #[test]
    fn a_poll_ends_in_time() {
        let error = poll(Duration::from_millis(20), || Ok(false)).unwrap_err();
        assert_eq!(error.exit_code(), 75);
        let mut left = 3;
        let done = poll(Duration::from_secs(60), || {
            left -= 1;
            Ok(left == 0)
        });
        assert!(done.is_ok());
    }
}
