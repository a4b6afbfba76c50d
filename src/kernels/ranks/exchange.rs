//! Transfers between all pairs of ranks, in rounds of a few chunks.
//!
//! *Why* point to point, not the collectives of MPI: a transfer that is late names the rank that is missing;
//! counts and displacements of collectives are C ints; what arrives is used while the next chunk is under
//! way, so that the receive buffer is a few chunks long instead of the whole; and there is one
//! order of additions, that of [`tree`](super::tree).

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::landing::Landing;
use super::late::missing;
use super::mpi::{Mpi, Request};
use super::on_gpus::Gpus;
use crate::error::{Error, Result};

/// Bytes that are on their way between two ranks at once: enough for the bandwidth of a link, little
/// enough for the caches.
pub(super) const CHUNK: usize = 1 << 20;
/// Rounds that are under way at once.
const ROUNDS: usize = 2;
/// A rank that waits polls so many times before it sleeps between polls.
const SPINS: u32 = 2000;
const NAP: Duration = Duration::from_micros(50);
/// Tags are below the bound that every MPI has.
const TAGS: usize = 1 << 15;

/// What this rank sends to each rank, and how many bytes it gets from each; nothing to and from itself.
pub(super) struct Plan<'a> {
    pub(super) sends: Vec<&'a [u8]>,
    pub(super) receives: Vec<usize>,
}

/// What moves the bytes.
pub(super) enum Wire {
    Mpi(Arc<Mpi>),
    /// By way of the GPUs' memory.
    Gpus(Arc<Gpus>),
}

/// The ranks, seen from this one.
pub(super) struct World {
    wire: Wire,
    /// Calls so far.
    calls: usize,
    /// Receive buffers that are free.
    free: Vec<Vec<f32>>,
    /// Why there is nothing to exchange any more.
    ended: Option<Error>,
    finalized: bool,
}

impl Plan<'_> {
    fn longest(&self) -> usize {
        let sends = self.sends.iter().map(|bytes| bytes.len());
        let longest = sends.chain(self.receives.iter().copied()).max();
        longest.unwrap_or(0)
    }
}

/// Transfers that are under way.
#[derive(Default)]
struct Round {
    pending: Vec<Pending>,
    landing: Landing,
}

struct Pending {
    request: Request,
    rank: usize,
}

impl Drop for Round {
    /// What MPI may still write to is never freed.
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            mem::forget(mem::take(&mut self.landing));
        }
    }
}

impl World {
    pub(super) fn new(wire: Wire) -> Self {
        Self {
            wire,
            calls: 0,
            free: Vec::new(),
            ended: None,
            finalized: false,
        }
    }

    /// Moves what the plan says, and hands over what came, round by round: in a round that begins at byte
    /// `offset` of every transfer, bytes `offset..offset + CHUNK`.
    ///
    /// # Errors
    /// [`Kind::Rank`](crate::error::Kind::Rank) if nothing moves within `limit`, or MPI fails. No call
    /// succeeds after that.
    pub(super) fn exchange(
        &mut self,
        what: &str,
        limit: Duration,
        plan: &Plan,
        arrived: impl FnMut(usize, &mut Landing),
    ) -> Result<()> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        self.calls += 1;
        let result = match &self.wire {
            Wire::Mpi(mpi) => {
                let mpi = Arc::clone(mpi);
                self.rounds(&mpi, what, limit, plan, arrived)
            }
            Wire::Gpus(gpus) => {
                let gpus = Arc::clone(gpus);
                let rounds = self.rounds_of_gpus(&gpus, limit, plan, arrived);
                rounds.map_err(|error| error.at(what))
            }
        };
        if let Err(error) = &result {
            self.ended = Some(error.clone());
        }
        result
    }

    /// As [`rounds`](Self::rounds), by one group of NCCL for each.
    fn rounds_of_gpus(
        &mut self,
        gpus: &Gpus,
        limit: Duration,
        plan: &Plan,
        mut arrived: impl FnMut(usize, &mut Landing),
    ) -> Result<()> {
        for offset in (0..plan.longest()).step_by(CHUNK) {
            let sends = plan
                .sends
                .iter()
                .map(|bytes| &bytes[part(offset, bytes.len())]);
            let lengths = plan.receives.iter().map(|&all| part(offset, all).len());
            let mut landing = Landing::of(lengths.collect(), self.free.pop().unwrap_or_default());
            gpus.exchange(limit, &sends.collect::<Vec<_>>(), &mut landing)?;
            arrived(offset, &mut landing);
            self.free.push(landing.into_memory());
        }
        Ok(())
    }

    fn rounds(
        &mut self,
        mpi: &Mpi,
        what: &str,
        limit: Duration,
        plan: &Plan,
        mut arrived: impl FnMut(usize, &mut Landing),
    ) -> Result<()> {
        let mut offsets = (0..plan.longest()).step_by(CHUNK);
        let mut under_way = VecDeque::new();
        let tag = tag(what, self.calls);
        loop {
            while under_way.len() < ROUNDS
                && let Some(offset) = offsets.next()
            {
                // It is known before it begins: what has begun when another part fails is not freed.
                under_way.push_back((offset, Round::default()));
                if let Some((_, round)) = under_way.back_mut() {
                    self.begin(mpi, plan, offset, tag, round)
                        .map_err(|error| error.at(what))?;
                }
            }
            let Some((offset, mut round)) = under_way.pop_front() else {
                return Ok(());
            };
            wait(mpi, what, limit, &mut round)?;
            arrived(offset, &mut round.landing);
            self.free.push(mem::take(&mut round.landing).into_memory());
        }
    }

    fn begin(
        &mut self,
        mpi: &Mpi,
        plan: &Plan,
        offset: usize,
        tag: i32,
        round: &mut Round,
    ) -> Result<()> {
        let lengths = plan.receives.iter().map(|&all| part(offset, all).len());
        round.landing = Landing::of(lengths.collect(), self.free.pop().unwrap_or_default());
        let landing = &mut round.landing;
        let row_bytes = landing.stride * size_of::<f32>();
        let base: *mut u8 = landing.rows().as_mut_ptr().cast();
        for (rank, &length) in landing.lengths().iter().enumerate() {
            if length > 0 {
                // SAFETY: row `rank` begins here and has `length` bytes. The round owns it, hands it out
                // when the request is done, and never frees it before.
                let request = unsafe {
                    let row = base.add(rank * row_bytes);
                    mpi.receive(row, length, rank, tag)?
                };
                round.pending.push(Pending { request, rank });
            }
        }
        // Each rank begins with the one after it, so that not all send to the same one first.
        let (own, size) = (mpi.rank, mpi.size);
        for rank in (1..size).map(|step| (own + step) % size) {
            let bytes = plan.sends[rank];
            let bytes = &bytes[part(offset, bytes.len())];
            if !bytes.is_empty() {
                // SAFETY: the plan borrows the bytes until `exchange` returns: after a request is done,
                // or after a failure, when no call of MPI moves anything any more.
                let request = unsafe { mpi.send(bytes, rank, tag)? };
                round.pending.push(Pending { request, rank });
            }
        }
        Ok(())
    }

    /// Ends MPI, once.
    pub(super) fn finalize(&mut self) -> Result<()> {
        self.ended = Some(Error::rank("the ranks have ended"));
        self.finalized = true;
        match &self.wire {
            Wire::Mpi(mpi) => mpi.finalize(),
            Wire::Gpus(_) => Ok(()),
        }
    }

    /// Whether that was done.
    pub(super) fn is_finalized(&self) -> bool {
        self.finalized
    }
}

/// Polls until the round is done. The limit is for the time in which nothing moves.
fn wait(mpi: &Mpi, what: &str, limit: Duration, round: &mut Round) -> Result<()> {
    let (mut since, mut idle) = (Instant::now(), 0);
    while !round.pending.is_empty() {
        let before = round.pending.len();
        let mut failure = None;
        round.pending.retain_mut(|pending| {
            let done = mpi.is_done(&mut pending.request);
            done.map_or_else(
                |error| {
                    failure.get_or_insert(error);
                    true
                },
                |done| !done,
            )
        });
        if let Some(error) = failure {
            return Err(error.at(what));
        }
        if round.pending.len() < before {
            (since, idle) = (Instant::now(), 0);
            continue;
        }
        if since.elapsed() >= limit {
            let ranks = round.pending.iter().map(|pending| pending.rank);
            return Err(missing(what, ranks.collect(), limit));
        }
        idle += 1;
        match idle > SPINS {
            true => std::thread::sleep(NAP),
            false => std::thread::yield_now(),
        }
    }
    Ok(())
}

/// The bytes of a transfer of so many that a round moves which begins at `offset`.
fn part(offset: usize, length: usize) -> Range<usize> {
    offset.min(length)..length.min(offset.saturating_add(CHUNK))
}

/// The tag of a call's messages. Ranks that make different calls wait for each other, instead of taking one
/// call's bytes for another's.
fn tag(what: &str, calls: usize) -> i32 {
    let hash = what.bytes().fold(calls, |hash, byte| {
        (hash ^ usize::from(byte)).wrapping_mul(0x0100_0193)
    });
    ((hash >> 8) % TAGS) as i32
}
