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

/// What ranks of a command do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// They share it.
    Shared,
    /// It is one process's: several would write the same files.
    Alone,
    /// It does no harm, or connects the ranks itself.
    Any,
}

/// Connects the ranks that a launcher started, if it started several and they share the work; others than the
/// first are silent from now on.
///
/// # Errors
/// If the command is one process's, or the ranks cannot be connected.
pub fn open(work: Work) -> Result<()> {
    match work {
        Work::Any => Ok(()),
        Work::Shared => connect(DistributedConfig::default().limit()).map(drop),
        Work::Alone => {
            let Launch {
                launcher,
                rank,
                size,
                ..
            } = Launch::parse(&ranks::environment())?;
            if size == 1 {
                return Ok(());
            }
            let fact = format!("{launcher} started {size} ranks of a command that is one process");
            let error = Error::input(fact).hint("start it without a launcher");
            Err(in_turn(rank, error))
        }
    }
}

/// As [`open`], of a command whose ranks wait so long for each other.
pub fn connect(limit: Duration) -> Result<Ranks> {
    let environment = ranks::environment();
    let rank = Launch::parse(&environment)?.rank;
    let ranks = ranks::open(&environment, limit).map_err(|error| in_turn(rank, error))?;
    if !ranks.is_first() {
        silence();
    }
    match ranks.size() {
        1 => Ok(ranks),
        _ => Ok(RANKS.get_or_init(|| ranks).clone()),
    }
}

/// An error that other ranks may have, too: the first one says it first, and the launcher ends the others.
fn in_turn(rank: usize, error: Error) -> Error {
    if rank > 0 {
        sleep(FIRST_WORD);
    }
    error
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
