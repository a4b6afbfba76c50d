//! Several processes that compute together: exact sums and exchanges between them.
//!
//! Hides the library that moves the bytes. Where things are:
//!
//! - [`library`]: an MPI library, opened at run time; `mpi`: the calls into it.
//! - [`nccl`]: NCCL, opened at run time, and the calls into it; `on_gpus`: the GPUs that it connects.
//! - `exchange`: transfers between all pairs of ranks, in chunks, with a deadline; `landing`: where they go; `late`:
//!   words for ranks that do not come.
//! - [`tree`]: the order in which buffers are added.
//!
//! *Why* no reduction of a library: its order depends on the algorithm that it chooses. Here ranks exchange
//! their parts and each adds those of its piece in a fixed order, which moves the same bytes.

mod exchange;
mod landing;
mod late;
pub mod library;
mod mpi;
pub mod nccl;
mod on_gpus;
pub mod tree;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use candle_core::Device;

use crate::error::{Error, Result};
use exchange::{CHUNK, Plan, Wire, World};
use landing::as_bytes;
use library::Library;
use mpi::Mpi;
use nccl::{Id, Nccl, Transfer};
use on_gpus::Gpus;

pub use late::listed;

/// How long [`Ranks::abort`] waits for the launcher to end all processes.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The processes that compute together; cheap to clone. All of them make the same calls in the same
/// order, with the same `what`: it names the call in errors, and calls with another one wait for each other.
///
/// # Errors
/// Every call fails with [`Kind::Rank`](crate::error::Kind::Rank), naming the ranks that are missing, if nothing
/// arrives within the time limit, or MPI fails; no later call succeeds then, and the process should
/// [`abort`](Self::abort). So the limit is longer than any work that ranks do while others wait.
#[derive(Clone)]
pub struct Ranks {
    shared: Arc<Shared>,
    limit: Duration,
}

struct Shared {
    rank: usize,
    size: usize,
    library: Option<String>,
    /// `None` where there is one rank.
    world: Option<Mutex<World>>,
    /// For [`Ranks::abort`], while another thread may wait in the exchange.
    mpi: Option<Arc<Mpi>>,
    /// Files that may be NCCL, for GPUs that are connected later.
    nccl: Vec<String>,
    gpus: OnceLock<Arc<Gpus>>,
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Ranks(rank {} of {})", self.rank(), self.size())
    }
}

impl Ranks {
    /// One rank: every call is a copy, and no library is opened.
    pub fn alone() -> Self {
        Self {
            shared: Arc::new(Shared {
                rank: 0,
                size: 1,
                library: None,
                world: None,
                mpi: None,
                nccl: Vec::new(),
                gpus: OnceLock::new(),
            }),
            limit: Duration::MAX,
        }
    }

    /// Initializes MPI, which waits for all processes of the launch without a limit; `limit` is for the time
    /// in which a call makes no progress after that. Once per process. `nccl` are files that may be NCCL, for
    /// tensors on GPUs.
    ///
    /// # Errors
    /// If the library cannot be used, or MPI fails.
    pub fn start(library: &Library, nccl: Vec<String>, limit: Duration) -> Result<Self> {
        start_once()?;
        let mpi = Arc::new(Mpi::start(library)?);
        let shared = Shared {
            rank: mpi.rank,
            size: mpi.size,
            library: Some(mpi.version.clone()),
            world: Some(Mutex::new(World::new(Wire::Mpi(Arc::clone(&mpi))))),
            mpi: Some(mpi),
            nccl,
            gpus: OnceLock::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            limit,
        })
    }

    /// Connects ranks that have a GPU each by NCCL alone: rank and number of ranks, and the id that rank 0 made.
    /// Once per process.
    ///
    /// # Errors
    /// If NCCL fails, or not all ranks come within `limit`.
    pub fn start_on_gpus(
        nccl: Nccl,
        id: Id,
        (rank, size): (usize, usize),
        device: &Device,
        limit: Duration,
    ) -> Result<Self> {
        start_once()?;
        let gpus = Gpus::connect(nccl, id, (rank, size), device, limit);
        let gpus = Arc::new(gpus.map_err(|error| error.at("the start of all ranks"))?);
        let shared = Shared {
            rank,
            size,
            library: Some(gpus.words()),
            world: Some(Mutex::new(World::new(Wire::Gpus(Arc::clone(&gpus))))),
            mpi: None,
            nccl: Vec::new(),
            gpus: OnceLock::from(gpus),
        };
        Ok(Self {
            shared: Arc::new(shared),
            limit,
        })
    }

    /// The GPUs of the ranks, of which `device` is this one's; those that MPI started are connected now. All
    /// ranks come here together.
    fn gpus(&self, device: &Device) -> Result<Arc<Gpus>> {
        if let Some(gpus) = self.shared.gpus.get() {
            return Ok(Arc::clone(gpus));
        }
        // All learn of a rank that has no NCCL: the others would wait for it.
        let what = "the start of NCCL";
        let nccl = Nccl::open(&self.shared.nccl);
        let id = match &nccl {
            Ok(nccl) if self.is_first() => nccl.unique_id().map(|id| id.as_bytes().to_vec()),
            Ok(_) => Ok(vec![1]),
            Err(error) => Err(error.clone()),
        };
        let mine = id.as_deref().unwrap_or_default();
        let mut all = self.gather(what, mine)?;
        let nccl = nccl.and_then(|nccl| id.map(|_| nccl))?;
        if let Some(rank) = all.iter().position(Vec::is_empty) {
            return Err(Error::rank(format!("rank {rank} has no NCCL")).at(what));
        }
        let id = Id::from_bytes(&all.swap_remove(0))?;
        let gpus = Gpus::connect(nccl, id, (self.rank(), self.size()), device, self.limit);
        let gpus = Arc::new(gpus.map_err(|error| error.at(what))?);
        Ok(Arc::clone(self.shared.gpus.get_or_init(|| gpus)))
    }

    /// Has the GPUs exchange bytes, behind all work that `device` was given before, and waits for nothing but that
    /// the transfers have begun.
    ///
    /// # Safety
    /// The memory is that of `device`, and there until [`finish`](Self::finish) has returned.
    pub(super) unsafe fn transfer(
        &self,
        what: &str,
        device: &Device,
        transfers: &[Transfer],
    ) -> Result<()> {
        let gpus = self.gpus(device)?;
        // SAFETY: the caller's.
        unsafe { gpus.begin(transfers, self.limit) }.map_err(|error| error.at(what))
    }

    /// Waits until `device` has done all that it was given.
    pub(super) fn finish(&self, what: &str, device: &Device) -> Result<()> {
        let gpus = self.gpus(device)?;
        gpus.wait(self.limit).map_err(|error| error.at(what))
    }

    /// The same processes, whose calls fail that make no progress within another time.
    pub fn with_limit(&self, limit: Duration) -> Self {
        let shared = Arc::clone(&self.shared);
        Self { shared, limit }
    }

    /// The same processes, whose calls wait as long as it takes: for what one rank does alone.
    pub fn without_limit(&self) -> Self {
        self.with_limit(Duration::MAX)
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.shared.rank
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Whether this is rank 0, which prints and writes files.
    pub fn is_first(&self) -> bool {
        self.shared.rank == 0
    }

    /// The name and version of the library that connects the ranks, and its file; `None` where there is one rank.
    pub fn library(&self) -> Option<&str> {
        self.shared.library.as_deref()
    }

    /// What every rank gave, in the order of ranks; lengths may differ.
    pub fn gather(&self, what: &str, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.gather_equal(what, &(mine.len() as u64).to_le_bytes())?;
        let all = lengths.iter().map(|bytes| vec![0; length(bytes)]);
        self.gather_into(what, mine, all.collect())
    }

    /// As [`gather`](Self::gather), where all give as many bytes.
    fn gather_equal(&self, what: &str, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.gather_into(what, mine, vec![vec![0; mine.len()]; self.size()])
    }

    /// As [`gather`](Self::gather), into buffers of the length that each rank gives.
    fn gather_into(&self, what: &str, mine: &[u8], mut all: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let receives = all.iter().map(Vec::len).collect();
        all[self.rank()].copy_from_slice(mine);
        let sends = vec![mine; self.size()];
        self.exchange(what, sends, receives, |rank, at, bytes| {
            all[rank][at..at + bytes.len()].copy_from_slice(bytes);
        })?;
        Ok(all)
    }

    /// Replaces `bytes` by those of rank 0, which sends them to one rank after the other: for little.
    pub fn broadcast(&self, what: &str, bytes: &mut Vec<u8>) -> Result<()> {
        let mut header = (bytes.len() as u64).to_le_bytes().to_vec();
        self.send_from_first(what, &mut header)?;
        if !self.is_first() {
            bytes.clear();
            bytes.resize(length(&header), 0);
        }
        self.send_from_first(what, bytes)
    }

    /// As [`broadcast`](Self::broadcast), where all know how many bytes there are.
    fn send_from_first(&self, what: &str, bytes: &mut [u8]) -> Result<()> {
        let mut receives = vec![0; self.size()];
        if self.is_first() {
            return self.exchange(what, vec![bytes; self.size()], receives, |_, _, _| {});
        }
        receives[0] = bytes.len();
        self.exchange(what, vec![&[]; self.size()], receives, |_, at, part| {
            bytes[at..at + part.len()].copy_from_slice(part);
        })
    }

    /// Gives rank r in `piece` the sum over ranks of their `whole[pieces[r]]`, added in the order of
    /// [`tree`].
    ///
    /// # Panics
    /// If `pieces`, the same at every rank, are not one range per rank that cover `whole` in order, or
    /// `piece` is not as long as this rank's.
    pub fn sum_pieces(
        &self,
        what: &str,
        whole: &[f32],
        pieces: &[Range<usize>],
        piece: &mut [f32],
    ) -> Result<()> {
        self.check_cover(whole.len(), pieces);
        let own = &whole[pieces[self.rank()].clone()];
        assert_eq!(own.len(), piece.len(), "the piece of this rank");
        let Some(world) = &self.shared.world else {
            piece.copy_from_slice(own);
            return Ok(());
        };
        let sends = pieces.iter().map(|range| as_bytes(&whole[range.clone()]));
        let plan = self.plan(sends.collect(), vec![size_of_val(own); self.size()]);
        let values = CHUNK / size_of::<f32>();
        let mut world = lock(world)?;
        world.exchange(what, self.limit, &plan, |offset, landing| {
            let start = (offset / size_of::<f32>()).min(own.len());
            let part = start..own.len().min(start + values);
            let (length, stride) = (part.len(), landing.stride);
            if length > 0 {
                let rows = landing.rows();
                rows[self.rank() * stride..][..length].copy_from_slice(&own[part.clone()]);
                tree::reduce(rows, stride, length);
                piece[part].copy_from_slice(&rows[..length]);
            }
        })
    }

    /// Fills `whole` at every rank: the bytes of `whole[pieces[r]]` come from rank r.
    ///
    /// # Panics
    /// If `pieces`, the same at every rank, are not one range per rank that cover `whole` in order.
    pub fn gather_pieces(
        &self,
        what: &str,
        whole: &mut [u8],
        pieces: &[Range<usize>],
    ) -> Result<()> {
        self.check_cover(whole.len(), pieces);
        let own = pieces[self.rank()].clone();
        let (before, rest) = whole.split_at_mut(own.start);
        let (mine, after) = rest.split_at_mut(own.len());
        let mine: &[u8] = mine;
        let receives = pieces.iter().map(Range::len).collect();
        self.exchange(
            what,
            vec![mine; self.size()],
            receives,
            |rank, at, bytes| {
                let start = pieces[rank].start + at;
                let into = match start < own.start {
                    true => &mut before[start..],
                    false => &mut after[start - own.end..],
                };
                into[..bytes.len()].copy_from_slice(bytes);
            },
        )
    }

    /// Waits until all ranks have come here.
    pub fn barrier(&self, what: &str) -> Result<()> {
        self.gather_equal(what, &[0]).map(drop)
    }

    /// Ends MPI and NCCL at a regular end, after all ranks have met; does nothing a second time, and fails again after a failure. By the
    /// thread that [started](Self::start) it.
    pub fn finalize(&self) -> Result<()> {
        let Some(world) = &self.shared.world else {
            return Ok(());
        };
        if lock(world)?.is_finalized() {
            return Ok(());
        }
        let what = "the end of all ranks";
        self.barrier(what)?;
        if let Some(gpus) = self.shared.gpus.get() {
            gpus.finalize(self.limit).map_err(|error| error.at(what))?;
        }
        lock(world)?.finalize()
    }

    /// Ends the processes of all ranks with this exit status, whatever they do. `MPI_Abort` may hang where
    /// a link is down: this process ends 10 seconds later all the same.
    pub fn abort(&self, status: u8) -> ! {
        let (mpi, gpus) = (self.shared.mpi.clone(), self.shared.gpus.get().cloned());
        // Either may hang. With the process its GPU leaves NCCL as well.
        let (end, time): (Box<dyn FnOnce() + Send>, _) = match (mpi, gpus) {
            (Some(mpi), _) => (Box::new(move || mpi.abort(status)), LAST_WORDS),
            (None, Some(gpus)) => (Box::new(move || gpus.abort()), LAST_WORDS / 5),
            (None, None) => library::leave(status),
        };
        if let Ok(thread) = std::thread::Builder::new().spawn(end) {
            let since = Instant::now();
            while !thread.is_finished() && since.elapsed() < time {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        library::leave(status)
    }

    /// Moves bytes between all pairs of ranks; `arrived` gets rank, offset and bytes of every part that
    /// comes.
    fn exchange(
        &self,
        what: &str,
        sends: Vec<&[u8]>,
        receives: Vec<usize>,
        mut arrived: impl FnMut(usize, usize, &[u8]),
    ) -> Result<()> {
        let Some(world) = &self.shared.world else {
            return Ok(());
        };
        let plan = self.plan(sends, receives);
        lock(world)?.exchange(what, self.limit, &plan, |offset, landing| {
            for rank in 0..self.size() {
                let bytes = landing.bytes(rank);
                if !bytes.is_empty() {
                    arrived(rank, offset, bytes);
                }
            }
        })
    }

    /// Nothing goes from a rank to itself.
    fn plan<'a>(&self, mut sends: Vec<&'a [u8]>, mut receives: Vec<usize>) -> Plan<'a> {
        sends[self.rank()] = &[];
        receives[self.rank()] = 0;
        Plan { sends, receives }
    }

    fn check_cover(&self, length: usize, pieces: &[Range<usize>]) {
        assert_eq!(pieces.len(), self.size(), "one piece per rank");
        let end = pieces.iter().fold(0, |end, piece| {
            assert!(piece.start == end && piece.end >= end, "pieces in order");
            piece.end
        });
        assert_eq!(end, length, "pieces cover the whole");
    }
}

/// # Errors
/// The second time.
fn start_once() -> Result<()> {
    static STARTED: AtomicBool = AtomicBool::new(false);
    match STARTED.swap(true, Relaxed) {
        false => Ok(()),
        true => Err(Error::failed(
            "the ranks of this process were started before",
        )),
    }
}

fn length(bytes: &[u8]) -> usize {
    let bytes = bytes.try_into().unwrap_or_default();
    u64::from_le_bytes(bytes) as usize
}

fn lock(world: &Mutex<World>) -> Result<std::sync::MutexGuard<'_, World>> {
    let poisoned = |_| Error::rank("another thread panicked in an exchange");
    world.lock().map_err(poisoned)
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    #[test]
    fn alone_every_call_is_a_copy() {
        let ranks = Ranks::alone();
        assert_eq!((ranks.rank(), ranks.size(), ranks.library()), (0, 1, None));
        assert_eq!(ranks.gather("a", b"mine").unwrap(), [b"mine"]);
        let mut bytes = b"mine".to_vec();
        ranks.broadcast("b", &mut bytes).unwrap();
        ranks
            .gather_pieces("c", &mut bytes, from_ref(&(0..4)))
            .unwrap();
        assert_eq!(bytes, b"mine");
        let mut piece = [0.0; 2];
        ranks
            .sum_pieces("d", &[1.0, 2.0], from_ref(&(0..2)), &mut piece)
            .unwrap();
        assert_eq!(piece, [1.0, 2.0]);
        ranks.barrier("e").unwrap();
        ranks.finalize().unwrap();
        ranks.finalize().unwrap();
        assert_eq!(format!("{ranks:?}"), "Ranks(rank 0 of 1)");
    }
}
