//! Ranks whose GPUs exchange bytes by NCCL.

use std::fmt;
use std::time::Duration;

use candle_core::{DType, Device};

use super::landing::Landing;
use super::nccl::{Id, Nccl, Transfer, World};
use crate::error::Result;
use crate::kernels::cuda::driver::{address, get, is_idle, put, stream};
use crate::kernels::tensor::fresh_on;

/// The GPU of this rank, connected to those of the others. All ranks make the same calls in the same order.
pub(super) struct Gpus {
    world: World,
    device: Device,
}

impl fmt::Debug for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Gpus({})", self.world.words())
    }
}

impl Gpus {
    /// Connects this rank's `device` with those of the ranks that have the same id.
    ///
    /// # Errors
    /// As of [`World::connect`], or if `device` is no GPU.
    pub(super) fn connect(
        nccl: Nccl,
        id: Id,
        place: (usize, usize),
        device: &Device,
        limit: Duration,
    ) -> Result<Self> {
        // NCCL takes the GPU that is bound to the thread.
        stream(device)?;
        Ok(Self {
            world: World::connect(nccl, id, place, limit)?,
            device: device.clone(),
        })
    }

    /// NCCL's version and file.
    pub(super) fn words(&self) -> String {
        self.world.words()
    }

    /// Gives transfers to the device's stream, behind all work before them.
    ///
    /// # Safety
    /// The memory belongs to the device, and is there until the stream has done them.
    pub(super) unsafe fn begin(&self, transfers: &[Transfer], limit: Duration) -> Result<()> {
        // SAFETY: the caller's.
        unsafe { self.world.begin(transfers, stream(&self.device)?, limit) }
    }

    /// Waits until the device has done all that it was given.
    pub(super) fn wait(&self, limit: Duration) -> Result<()> {
        self.world.wait(limit, || is_idle(&self.device))
    }

    /// Exchanges bytes in host memory: sends to each rank, and what `landing` expects of each.
    pub(super) fn exchange(
        &self,
        limit: Duration,
        sends: &[&[u8]],
        landing: &mut Landing,
    ) -> Result<()> {
        let mut leaving = Vec::new();
        for bytes in sends {
            leaving.extend_from_slice(bytes);
            leaving.resize(aligned(leaving.len()), 0);
        }
        let lengths = landing.lengths().iter().map(|&bytes| aligned(bytes));
        let coming: usize = lengths.sum();
        // SAFETY: what is sent is written before, what is read was received.
        let memory = |bytes: usize| unsafe { fresh_on(bytes.max(1), DType::U8, &self.device) };
        let (mut from, to) = (memory(leaving.len())?, memory(coming)?);
        if !leaving.is_empty() {
            put(&leaving, (&mut from).into())?;
        }
        let (mut out, mut into) = (address(&from)?, address(&to)?);
        let mut transfers = Vec::new();
        for (rank, bytes) in sends.iter().enumerate() {
            for (sends, address, bytes) in [
                (true, &mut out, bytes.len()),
                (false, &mut into, landing.lengths()[rank]),
            ] {
                transfers.push(Transfer {
                    rank,
                    address: *address,
                    bytes,
                    sends,
                });
                *address += aligned(bytes) as u64;
            }
        }
        // SAFETY: both buffers are the device's, as long as the transfers say, and live until the end of this.
        unsafe { self.begin(&transfers, limit)? };
        self.wait(limit)?;
        if coming > 0 {
            let came: Vec<u8> = get(&to)?;
            let mut start = 0;
            for rank in 0..sends.len() {
                let length = landing.lengths()[rank];
                landing.fill(rank, &came[start..start + length]);
                start += aligned(length);
            }
        }
        Ok(())
    }

    /// Ends the connection when all ranks have done what is under way. No call may follow.
    pub(super) fn finalize(&self, limit: Duration) -> Result<()> {
        stream(&self.device)?;
        self.world.finalize(limit)
    }

    /// Ends what is under way.
    pub(super) fn abort(&self) {
        self.world.abort();
    }
}

/// Where what is behind so many bytes begins: NCCL moves 16 bytes at once where it can.
fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(16)
}
