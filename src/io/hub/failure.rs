//! Failures of hub requests, and which of them are retried.

use std::io;
use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode};

use super::settings::Patience;
use crate::io::http::retry_after;

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refuses.
    Status {
        code: u16,
        /// Its `x-error-code`.
        name: Option<String>,
        /// How long it wants to be left alone.
        wait: Option<Duration>,
    },
    /// There was no connection, or it broke; whether it brought a good part of what was asked for.
    Broken { why: String, grown: bool },
    /// The server is too slow.
    Late(String),
    /// What no hub answers, and why.
    Odd(String),
    /// The fault is on this machine.
    Local(String),
    /// Another process is at it.
    Busy,
}

/// The result of a request.
pub(super) type Answer<T> = std::result::Result<T, Failure>;

impl Failure {
    /// An answer that is neither a success nor leads elsewhere.
    pub(super) fn of_status(status: StatusCode, headers: &HeaderMap) -> Self {
        let name = headers
            .get("x-error-code")
            .and_then(|name| name.to_str().ok());
        Self::Status {
            code: status.as_u16(),
            name: name.map(str::to_owned),
            wait: retry_after(headers),
        }
    }

    pub(super) fn odd(why: impl Into<String>) -> Self {
        Self::Odd(why.into())
    }

    /// What went wrong with a file of this machine.
    pub(super) fn local(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |error| Self::Local(format!("{path}: {error}"))
    }

    /// Whether the same request may succeed later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Status { code, .. } => {
                matches!(code, 408 | 425 | 429) || (*code >= 500 && *code != 501)
            }
            Self::Broken { .. } => true,
            _ => false,
        }
    }
}

/// Does the work until it succeeds or no further attempt is of use.
pub(super) fn persist<T>(
    patience: &Patience,
    attempts: u32,
    mut work: impl FnMut() -> Answer<T>,
) -> Answer<T> {
    let mut attempt = 1;
    loop {
        let failure = match work() {
            Err(failure) if failure.may_pass() => failure,
            done => return done,
        };
        if matches!(failure, Failure::Broken { grown: true, .. }) {
            attempt = 1;
        }
        if attempt >= attempts {
            return Err(failure);
        }
        let own = patience.first_wait * 2_u32.saturating_pow(attempt - 1);
        let asked = match failure {
            Failure::Status { wait, .. } => wait.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        std::thread::sleep(own.max(asked).min(patience.longest_wait));
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_waits_as_asked_but_not_for_ever() {
        let patience = Patience {
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(30),
            attempts: 3,
            ..Patience::default()
        };
        let count = |failure: &dyn Fn(usize) -> Failure| {
            let mut made = 0;
            let start = Instant::now();
            let done = persist(&patience, patience.attempts, || {
                made += 1;
                Err::<(), _>(failure(made))
            });
            assert!(done.is_err());
            (made, start.elapsed())
        };
        let status = |code| Failure::Status {
            code,
            name: None,
            wait: Some(Duration::from_secs(3600)),
        };
        let (made, time) = count(&|_| status(429));
        assert!(
            made == 3 && time >= Duration::from_millis(60),
            "{made} {time:?}"
        );
        for code in [401, 403, 404, 501] {
            assert_eq!(count(&|_| status(code)).0, 1, "{code}");
        }
        let broken = |grown| Failure::Broken {
            why: String::new(),
            grown,
        };
        assert_eq!(count(&|made| broken(made < 6)).0, 7);
        assert_eq!(count(&|_| Failure::Late(String::new())).0, 1);
    }
}
