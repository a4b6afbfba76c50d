//! Signals and time limits: how a command is asked to end.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use expo::error::{Error, Result};
use expo::session::{Reason, StopCondition};

use super::answer;

/// A number of the signal that asks for the end, 0 until there is one. The first INT or TERM sets it;
/// the next one ends the process at once, with 128 and its number.
#[cfg(unix)]
pub fn on_signal() -> Result<Arc<AtomicUsize>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;
    use std::sync::atomic::AtomicBool;

    let failed = |error: std::io::Error| Error::failed(format!("signals: {error}"));
    let (signal, again) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    for number in [SIGINT, SIGTERM] {
        // Before the flag that it looks at is set: what was registered first runs first.
        flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&again))
            .map_err(failed)?;
        flag::register(number, Arc::clone(&again)).map_err(failed)?;
        flag::register_usize(number, Arc::clone(&signal), number as usize).map_err(failed)?;
    }
    Ok(signal)
}

/// From here on a write beyond the size limit of files is an error instead of the process's end.
#[cfg(unix)]
pub fn outlive_size_limits() -> Result<()> {
    use signal_hook::{consts::SIGXFSZ, flag};
    let failed = |error: std::io::Error| Error::failed(format!("signals: {error}"));
    flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    Ok(())
}

/// This system has no such limit.
#[cfg(not(unix))]
pub fn outlive_size_limits() -> Result<()> {
    Ok(())
}

/// No signal is listened to on this system.
#[cfg(not(unix))]
pub fn on_signal() -> Result<Arc<AtomicUsize>> {
    Ok(Arc::default())
}

/// The end of a command that a signal asked for, after everything was saved.
#[derive(Debug)]
pub struct Signalled {
    /// Its number.
    pub signal: usize,
    /// What was saved.
    pub text: String,
}

impl Signalled {
    /// What shells say of a process that a signal ended.
    pub fn exit_code(&self) -> u8 {
        128 + self.signal as u8
    }
}

impl fmt::Display for Signalled {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Signalled {}

/// What ends a command after so long, if that is given, from now on.
pub fn limited(limit: Option<Limit>) -> StopCondition {
    StopCondition {
        time: limit.map(|limit| limit.0),
        ..StopCondition::default()
    }
}

/// Ends a command that was asked to: by a signal, whose exit code it has, or because its time is over,
/// which is no failure. `what` says what there is and how to go on.
pub fn ended(reason: Reason, what: &str) -> anyhow::Result<()> {
    match reason {
        Reason::Time => answer(&format!("the time is over: {what}\n")),
        Reason::Signal(signal) => {
            let text = format!("signal {signal}: {what}");
            Err(Signalled { signal, text }.into())
        }
    }
}

/// A time as people write it: `90s`, `45m`, `3h`, `1d`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Duration);

impl FromStr for Limit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::input(format!("\"{text}\" is no time")).hint("e.g. 90s, 45m, 3h, 1h30m or 2d")
        };
        let (mut total, mut rest) = (0u64, text);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let mut after = rest[digits..].chars();
            let seconds = match after.next() {
                Some('s') => 1,
                Some('m') => 60,
                Some('h') => 3600,
                Some('d') => 86_400,
                _ => return Err(wrong()),
            };
            let part = number.checked_mul(seconds).ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = after.as_str();
        }
        match total {
            0 => Err(wrong()),
            total => Ok(Self(Duration::from_secs(total))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let seconds = |text: &str| text.parse::<Limit>().map(|limit| limit.0.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(seconds("2d"), Ok(172_800));
        for wrong in [
            "",
            "3",
            "0s",
            "h",
            "1h-3m",
            "1.5h",
            "99999999999999999999s",
            "1µs",
            "3 h",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
