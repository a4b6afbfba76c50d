//! Signals and time limits: how a command is asked to stop.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use expo::error::{Error, Result};
use expo::session::{Reason, StopCondition};
use jiff::{Span, SpanRelativeTo};

use super::answer;

/// The number of the signal that asks the command to stop, 0 until there is one. The first SIGINT or
/// SIGTERM sets it; the next one terminates the process at once, with exit code 128 plus its number. SIGUSR1, as
/// ranks get it of the process that started them, asks as SIGTERM does, as often as it comes.
#[cfg(unix)]
pub fn on_signal() -> Result<Arc<AtomicUsize>> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::flag;

    let failed = |error: std::io::Error| Error::failed(format!("signals: {error}"));
    LISTENS.store(true, Relaxed);
    release_signals();
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
    flag::register_usize(SIGUSR1, Arc::clone(&signal), SIGTERM as usize).map_err(failed)?;
    Ok(signal)
}

/// What a signal does to a command that does not [listen](on_signal), while a bar is drawn: the command
/// ends at the next event, when the bar is erased. Otherwise a signal has its default action.
#[cfg(unix)]
struct WhileDrawn {
    /// Whether a signal has its default action.
    default: Arc<AtomicBool>,
    /// The number of the signal that came instead.
    signal: Arc<AtomicUsize>,
}

#[cfg(unix)]
static WHILE_DRAWN: OnceLock<WhileDrawn> = OnceLock::new();

/// Whether a command listens to signals itself.
#[cfg(unix)]
static LISTENS: AtomicBool = AtomicBool::new(false);

/// Holds signals back while a bar is drawn, so that it is not left behind.
#[cfg(unix)]
pub fn hold_signals() {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;

    if LISTENS.load(Relaxed) {
        return;
    }
    let held = WHILE_DRAWN.get_or_init(|| {
        let held = WhileDrawn {
            default: Arc::new(AtomicBool::new(true)),
            signal: Arc::default(),
        };
        let again = Arc::new(AtomicBool::new(false));
        for number in [SIGINT, SIGTERM] {
            // Where that fails, a signal has its default action.
            let _ = flag::register_conditional_default(number, Arc::clone(&held.default))
                .and_then(|_| {
                    flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&again))
                })
                .and_then(|_| flag::register(number, Arc::clone(&again)))
                .and_then(|_| {
                    flag::register_usize(number, Arc::clone(&held.signal), number as usize)
                });
        }
        held
    });
    held.default.store(false, Relaxed);
}

/// The signal that was held back, if one was.
#[cfg(unix)]
pub fn held_signal() -> Option<usize> {
    let signal = WHILE_DRAWN.get()?.signal.load(Relaxed);
    (signal != 0 && !LISTENS.load(Relaxed)).then_some(signal)
}

/// Gives signals their default action again.
#[cfg(unix)]
pub fn release_signals() {
    if let Some(held) = WHILE_DRAWN.get() {
        held.default.store(!LISTENS.load(Relaxed), Relaxed);
    }
}

/// No signal is held back on this system.
#[cfg(not(unix))]
pub fn hold_signals() {}

/// No signal is held back on this system.
#[cfg(not(unix))]
pub fn held_signal() -> Option<usize> {
    None
}

/// No signal is held back on this system.
#[cfg(not(unix))]
pub fn release_signals() {}

/// Makes a write beyond the file size limit an error, instead of terminating the process.
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

/// A command that stopped on a signal, after everything was saved. No error: it has no `error:` in
/// front.
#[derive(Debug)]
pub struct Signalled {
    /// Its number.
    pub signal: usize,
    /// How far it got, what was saved and how to resume.
    pub text: String,
}

impl Signalled {
    /// The exit code that shells give a process that a signal ended.
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

/// Stops a command after this much time from now on, if a limit is given.
pub fn limited(limit: Option<Limit>) -> StopCondition {
    StopCondition {
        time: limit.map(|limit| limit.0),
        ..StopCondition::default()
    }
}

/// Ends a command that was asked to stop: by a signal, whose exit code it has, or by its time limit,
/// which is no failure. `at` says how far it got, `then` where that is saved and how to resume.
pub fn ended(reason: Reason, at: &str, then: &str) -> anyhow::Result<()> {
    match reason {
        Reason::Time => answer(&format!("out of time {at} (--max-time), {then}\n")),
        Reason::Signal(signal) => {
            let text = format!("interrupted {at} ({}), {then}", name(signal));
            Err(Signalled { signal, text }.into())
        }
    }
}

/// A signal as people know it.
pub fn name(signal: usize) -> Cow<'static, str> {
    match signal {
        2 => "Ctrl-C, SIGINT".into(),
        15 => "SIGTERM".into(),
        other => format!("signal {other}").into(),
    }
}

/// A time as people write it: `90s`, `45m`, `3h`, `1d`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Duration);

impl FromStr for Limit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::input(format!("\"{text}\" is not a time")).hint("e.g. 90s, 45m, 3h, 1h30m or 2d")
        };
        let span: Span = text.parse().map_err(|_| wrong())?;
        let time = span
            .to_duration(SpanRelativeTo::days_are_24_hours())
            .map_err(|_| wrong())?;
        match Duration::try_from(time) {
            Ok(time) if !time.is_zero() => Ok(Self(time)),
            _ => Err(wrong()),
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
        assert_eq!(seconds("1.5h"), Ok(5400));
        for wrong in [
            "",
            "3",
            "0s",
            "h",
            "1h-3m",
            "-3h",
            "99999999999999999999s",
            "1mo",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
    #[test]
    fn an_interruption_names_the_signal_as_people_know_it() {
        let said = |signal| {
            let error = ended(Reason::Signal(signal), "after step 5 of 30", "saved in x");
            error.unwrap_err().to_string()
        };
        assert_eq!(
            said(2),
            "interrupted after step 5 of 30 (Ctrl-C, SIGINT), saved in x"
        );
        assert_eq!(
            said(15),
            "interrupted after step 5 of 30 (SIGTERM), saved in x"
        );
    }
}
