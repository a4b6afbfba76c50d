//! A bound on what this process may allocate, for a process that works on something hostile.
//!
//! *Why*: bytes asked for are the same on every machine, and on every system; what an address space or
//! a control group holds is not. Off, it costs one load of a flag per allocation.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

static METERED: AtomicBool = AtomicBool::new(false);
static LEFT: AtomicI64 = AtomicI64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);

/// From now on this process may hold `bytes` more than it does; an allocation that does not fit fails,
/// which ends the process wherever it is not expected. Begins to count [`allocated`] anew.
pub fn allow(bytes: usize) {
    LEFT.store(i64::try_from(bytes).unwrap_or(i64::MAX / 2), Relaxed);
    ALLOCATED.store(0, Relaxed);
    METERED.store(true, Relaxed);
}

/// The bytes allocated since the last [`allow`], freed or not.
pub fn allocated() -> u64 {
    ALLOCATED.load(Relaxed)
}

/// Whether an allocation fits; if so it is counted.
#[inline]
pub(super) fn take(bytes: usize) -> bool {
    !METERED.load(Relaxed) || take_metered(bytes)
}

fn take_metered(bytes: usize) -> bool {
    ALLOCATED.fetch_add(bytes as u64, Relaxed);
    let bytes = bytes as i64;
    let fits = LEFT.fetch_sub(bytes, Relaxed) >= bytes;
    if !fits {
        LEFT.fetch_add(bytes, Relaxed);
    }
    fits
}

/// An allocation was freed.
#[inline]
pub(super) fn give(bytes: usize) {
    if METERED.load(Relaxed) {
        LEFT.fetch_add(bytes as i64, Relaxed);
    }
}
