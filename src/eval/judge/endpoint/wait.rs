//! Waits that end when the run is stopped.

use std::time::{Duration, Instant};

use crate::eval::judge::reply::Miss;

/// Sleeps, until it is over or the run is to end.
pub(super) fn sleep(
    time: Duration,
    stopped: &(dyn Fn() -> bool + Sync),
) -> std::result::Result<(), Miss> {
    let until = Instant::now() + time;
    loop {
        if stopped() {
            return Err(Miss::Stopped);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
