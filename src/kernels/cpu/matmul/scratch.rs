//! Memory that a thread keeps from one product to the next.
//!
//! *Why*: fresh pages cost more than the packing that fills them.

use std::cell::Cell;
use std::thread::LocalKey;

use crate::kernels::cpu::lanes::LINE;

/// A buffer kept by a thread.
type Kept = LocalKey<Cell<Vec<f32>>>;

thread_local! {
    /// For what all threads read.
    pub(super) static SHARED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// For what the thread alone reads.
    pub(super) static OWN: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `len` values that begin at a cache line, whatever they hold.
///
/// A thread that waits inside `f` may take up another product: that one gets a buffer of its own.
pub(super) fn with<R>(kept: &'static Kept, len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = kept.take();
    if buffer.len() < len + LINE {
        // Not `resize`, which would copy.
        buffer = vec![0.0; len + LINE];
    }
    let start = buffer.as_ptr().align_offset(LINE * size_of::<f32>());
    let result = f(&mut buffer[start..start + len]);
    kept.set(buffer);
    result
}
