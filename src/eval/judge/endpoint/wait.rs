//! Waiting: as long as a server asks, and no longer than the run goes on.

use std::time::{Duration, Instant, SystemTime};

use crate::eval::judge::reply::Miss;

/// What `Retry-After` asks for: seconds, or a date.
pub(super) fn wait_of(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    let at = SystemTime::from(at.timestamp());
    // One that is over asks for nothing.
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_or_dates() {
        assert_eq!(wait_of(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(wait_of("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(
            wait_of("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        let far = wait_of("Wed, 21 Oct 2099 07:28:00 GMT").unwrap();
        assert!(far > Duration::from_secs(365 * 86_400));
        for wrong in ["-1", "nan", "soon", ""] {
            assert_eq!(wait_of(wrong), None, "{wrong}");
        }
    }
}
