//! Many runs one after the other, and what comes out side by side.
//!
//! *Why*: a run's own directory says whether it is finished, and with which config. So a sweep that was
//! interrupted, or has got new entries, makes only what is missing.

mod comparison;
mod frontier;

use super::identity::differences;
use super::{End, Opened, Resume, Run};
use crate::config::{Config, PlannedRun, SweepConfig};
use crate::error::{Error, Result};
use crate::ranks::{Ranks, share_results};
use crate::run_dir::{CONFIG, SummaryRecord};
use crate::session::{Event, Observer, Reason, StopCondition, Stopped};

pub use comparison::{comparison, over_seeds};
pub use frontier::frontier;

/// A run of a sweep that came to its end.
#[derive(Debug)]
pub struct Outcome {
    /// The loss.
    pub loss: String,
    /// What was set.
    pub settings: String,
    /// The same without the seed.
    pub setting: String,
    /// The run's `summary.json`; none where it met a value that is not finite.
    pub summary: Option<SummaryRecord>,
    /// What it met.
    pub failure: Option<String>,
}

/// Where a sweep stopped before its last run was finished.
#[derive(Debug)]
pub enum SweepStopped {
    /// In the middle of a run.
    InRun(Stopped),
    /// Before a run began.
    BeforeRun {
        /// Why.
        reason: Reason,
        /// Runs that are finished.
        done: usize,
        /// Runs of the sweep.
        total: usize,
    },
}

/// Makes the runs of a sweep that are not there yet, and resumes one that was interrupted. One
/// that meets a value that is not finite is an outcome like another. Where `until` ends the sweep, the
/// outcomes are those before.
///
/// # Errors
/// If a directory holds a run with another config, before any run is made; if the rows of a finished run have
/// changed; any other error of a run, those before it being kept.
pub fn sweep(
    config: &SweepConfig,
    until: &StopCondition,
    ranks: &Ranks,
    observe: Observer,
) -> Result<(Vec<Outcome>, Option<SweepStopped>)> {
    let total = config.runs.len();
    let found = match config.overwrite {
        true => Ok(vec![false; total]),
        // The first alone looks: files may be seen by one rank and not yet by another.
        false if !ranks.is_first() => Ok(Vec::new()),
        false => config.runs.iter().map(finished).collect(),
    };
    let found: Vec<bool> =
        share_results(ranks, "the runs that are there", found, 0)?.swap_remove(0);
    let mut outcomes = Vec::with_capacity(total);
    for (number, (run, found)) in config.runs.iter().zip(found).enumerate() {
        if !found && let Some(reason) = until.reached_on(ranks)? {
            let done = number;
            let before = SweepStopped::BeforeRun {
                reason,
                done,
                total,
            };
            return Ok((outcomes, Some(before)));
        }
        let name = format!("{} {}", run.loss, run.settings);
        observe(Event::SweepRun {
            number: number + 1,
            total,
            name: name.trim(),
            found,
        });
        // One that is finished is opened all the same: its rows may have changed under their names.
        let made = match found {
            true => make(run, config.overwrite, until, ranks, &mut |_| {}),
            false => make(run, config.overwrite, until, ranks, observe),
        };
        let (summary, failure) = match made {
            Ok(Ok(summary)) => (Some(summary), None),
            Ok(Err(stopped)) => return Ok((outcomes, Some(SweepStopped::InRun(stopped)))),
            Err(error) if error.is_non_finite() => (None, Some(error.to_string())),
            Err(error) => return Err(run.source.locate(error).at(name.trim())),
        };
        outcomes.push(Outcome {
            loss: run.loss.clone(),
            settings: run.settings.clone(),
            setting: without_seed(&run.settings),
            summary,
            failure,
        });
    }
    Ok((outcomes, None))
}

/// Settings, without that of `run.seed`.
fn without_seed(settings: &str) -> String {
    let rest = settings
        .split(' ')
        .filter(|set| !set.starts_with("run.seed="));
    rest.collect::<Vec<_>>().join(" ")
}

/// Whether the run is finished, with just this config.
fn finished(run: &PlannedRun) -> Result<bool> {
    let folder = &run.config.run.output_dir;
    let Ok(text) = std::fs::read_to_string(folder.join(CONFIG)) else {
        return Ok(false);
    };
    let mut there = Config::parse(&text, &[]);
    if let Ok(there) = &mut there {
        there.run.overwrite = false;
        // Where the sweep does not say it, the launcher did.
        there.batch.lanes = run.config.batch.lanes.and(there.batch.lanes);
    }
    let what = match there {
        Ok(there) if there == run.config => return Ok(SummaryRecord::open(folder)?.is_some()),
        Ok(there) => format!(": {}", differences(&there, &run.config)?),
        Err(_) => String::new(),
    };
    Err(
        Error::input(format!("holds a run with another config{what}"))
            .hint("choose another run.output_dir for the sweep, or replace its runs")
            .option("set", "run.overwrite=true")
            .at(folder.display()),
    )
}

fn make(
    run: &PlannedRun,
    overwrite: bool,
    until: &StopCondition,
    ranks: &Ranks,
    observe: Observer,
) -> Result<std::result::Result<SummaryRecord, Stopped>> {
    let mut config = run.config.clone();
    config.run.overwrite = overwrite;
    let resume = match overwrite {
        true => Resume::Never,
        false => Resume::Auto,
    };
    let mut run = match Run::open_on(config, &resume, &[], ranks, observe)? {
        Opened::Run(run) => run,
        Opened::Finished(summary) => return Ok(Ok(*summary)),
    };
    run.until = until.clone();
    Ok(match run.train(observe)? {
        End::Finished(summary) => Ok(summary.record()),
        End::Stopped(stopped) => Err(stopped),
    })
}
