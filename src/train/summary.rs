//! The summary of a finished run.

use std::path::PathBuf;

use super::profile::Profile;
use crate::error::Result;
use crate::io::durable::{json_text, write_file};
use crate::lab::story::Report;
use crate::run_dir::{Best, FirstAndLast, Record, RunWarning, SUMMARY, SummaryRecord};

/// The summary of a finished run.
#[derive(Debug)]
pub struct Summary {
    /// The run directory.
    pub output_dir: PathBuf,
    /// Optimizer steps made.
    pub steps: u64,
    /// The step of the checkpoint that this process resumed from.
    pub resumed_from: Option<u64>,
    /// Wall-clock seconds of training and evaluation by this process.
    pub seconds: f64,
    /// Training rows seen.
    pub rows: usize,
    /// Tokens computed with gradient.
    pub tokens: usize,
    /// Rows and tokens of this process.
    pub session: (usize, usize),
    /// Steps without an update, because of a non-finite value.
    pub passed_over: u64,
    /// The first and the last training record.
    pub train: (Record, Record),
    /// The evaluations before the first step and after the last.
    pub eval: Option<(Record, Record)>,
    /// The best checkpoint by `run.metric_for_best_model`, and its metric.
    pub best: Option<(PathBuf, f64)>,
    /// Samples before and after training, if the run is on the grammar's stories.
    pub story: Option<Report>,
    /// What the run warned of.
    pub warnings: Vec<RunWarning>,
    /// What the run did, in words.
    pub findings: Vec<String>,
    /// Where the time of the steps went, if measured; not in `summary.json`.
    pub profile: Option<Profile>,
}

impl Summary {
    /// The summary as it lies in `summary.json`.
    pub fn record(&self) -> SummaryRecord {
        let both = |(first, last): &(Record, Record)| FirstAndLast {
            first: first.clone(),
            last: last.clone(),
        };
        let best = |(checkpoint, value): &(PathBuf, f64)| Best {
            checkpoint: checkpoint.clone(),
            value: *value,
        };
        SummaryRecord {
            output_dir: self.output_dir.clone(),
            steps: self.steps,
            resumed_from: self.resumed_from,
            non_finite_steps: self.passed_over,
            rows: self.rows,
            tokens: self.tokens,
            seconds: self.seconds,
            rows_per_second: self.session.0 as f64 / self.seconds,
            tokens_per_second: self.session.1 as f64 / self.seconds,
            train: both(&self.train),
            eval: self.eval.as_ref().map(both),
            best: self.best.as_ref().map(best),
            story: self.story.clone(),
            warnings: self.warnings.clone(),
            findings: self.findings.clone(),
        }
    }

    /// Writes it into the run directory.
    pub(super) fn write(&self) -> Result<()> {
        let text = json_text(&self.record())?;
        write_file(&self.output_dir.join(SUMMARY), text.as_bytes())
    }
}
