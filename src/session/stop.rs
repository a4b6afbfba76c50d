//! When a command stops before its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::ranks::Ranks;

/// What may stop a command between two steps; nothing does by default.
#[derive(Debug, Clone)]
pub struct StopCondition {
    /// The number of the signal that asks for the end; 0 for none.
    pub signal: Arc<AtomicUsize>,
    /// The time that the process may take, from `start` on.
    pub time: Option<Duration>,
    /// When the process began.
    pub start: Instant,
}

impl Default for StopCondition {
    fn default() -> Self {
        Self {
            signal: Arc::default(),
            time: None,
            start: Instant::now(),
        }
    }
}

/// Why a run stopped before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A signal of this number.
    Signal(usize),
    /// The time limit was reached.
    Time,
}

impl StopCondition {
    /// As [`reached`](Self::reached), for all ranks alike: a signal counts on any of them, time on the first.
    ///
    /// # Errors
    /// If a rank fails.
    pub fn reached_on(&self, ranks: &Ranks) -> Result<Option<Reason>> {
        let own = self.reached();
        if ranks.size() == 1 {
            return Ok(own);
        }
        let own: &[u8] = match own {
            None => &[],
            Some(Reason::Time) => &[0],
            Some(Reason::Signal(signal)) => &[u8::try_from(signal).unwrap_or(u8::MAX)],
        };
        let all = ranks.gather("the ranks between two steps", own)?;
        let signal = all
            .iter()
            .filter_map(|of_rank| of_rank.first())
            .find(|&&it| it > 0);
        Ok(match signal {
            Some(&signal) => Some(Reason::Signal(signal.into())),
            None => (all[0] == [0]).then_some(Reason::Time),
        })
    }

    /// Whether to stop, and why.
    pub fn reached(&self) -> Option<Reason> {
        let over = || self.time.is_some_and(|time| self.start.elapsed() >= time);
        match self.signal.load(Relaxed) {
            0 => over().then_some(Reason::Time),
            signal => Some(Reason::Signal(signal)),
        }
    }
}

/// A run that stopped before its last step and can be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Why.
    pub reason: Reason,
    /// Steps made.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The checkpoint to resume from.
    pub checkpoint: PathBuf,
}
