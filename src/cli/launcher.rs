//! The ranks of a command: how they begin, speak and end together.
//!
//! *Why*: all ranks meet the same facts, and one of them is enough to say so: the first. A rank that fails
//! takes the others with it, for they would wait for it.

use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use expo::config::DistributedConfig;
use expo::error::{Error, Result};
use expo::ranks::{self, Launch, Ranks};

use super::error::{exit_code, last_line};
use super::stop::Signalled;
use super::terminal::{silence, tell};

/// Those of this process.
static RANKS: OnceLock<Ranks> = OnceLock::new();

/// For the first rank to report what all of them meet.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// Connects the ranks that a launcher started, if it started several; others than the first are silent from
/// now on. `shared` says whether ranks share the command's work.
///
/// # Errors
/// If they do not, or cannot be connected.
pub fn open(shared: bool) -> Result<()> {
    let Launch { launcher, size, .. } = Launch::parse(&ranks::environment())?;
    if size > 1 && !shared {
        let fact = format!("{launcher} started {size} ranks of a command that is one process");
        return Err(Error::input(fact).hint("start it without a launcher"));
    }
    connect(DistributedConfig::default().limit()).map(drop)
}

/// As [`open`], of a command whose ranks wait so long for each other.
pub fn connect(limit: Duration) -> Result<Ranks> {
    let ranks = ranks::open(&ranks::environment(), limit)?;
    if !ranks.is_first() {
        silence();
    }
    match ranks.size() {
        1 => Ok(ranks),
        _ => Ok(RANKS.get_or_init(|| ranks).clone()),
    }
}

/// The ranks that share a command's work.
pub fn ranks() -> Ranks {
    RANKS.get().cloned().unwrap_or_else(Ranks::alone)
}

/// Ends the ranks together: at a regular end all of them come here, a failure ends all where they are.
pub fn close(outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(ranks) = RANKS.get() else {
        return outcome;
    };
    let error = match outcome {
        Err(error) if !error.is::<Signalled>() => error,
        ended => match ranks.without_limit().finalize() {
            Ok(()) => return ended,
            Err(error) => error.into(),
        },
    };
    let line = last_line(&error);
    match ranks.is_first() {
        true => tell(line),
        false => {
            sleep(FIRST_WORD);
            super::terminal::speak();
            tell(format!("rank {}: {line}", ranks.rank()));
        }
    }
    ranks.abort(exit_code(&error))
}
