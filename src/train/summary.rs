//! What a finished run leaves to say.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Profile;
use crate::error::{Error, Result};
use crate::io::durable::write_file;
use crate::session::Record;
use crate::story::Report;

/// What a finished run leaves to say.
#[derive(Debug)]
pub struct Summary {
    /// Where everything is.
    pub output_dir: PathBuf,
    /// Optimizer steps made.
    pub steps: u64,
    /// The step of the checkpoint that this process went on from, if it did.
    pub resumed_from: Option<u64>,
    /// Wall-clock seconds of training and evaluation by this process.
    pub seconds: f64,
    /// Training rows seen.
    pub rows: usize,
    /// Tokens computed with gradient.
    pub tokens: usize,
    /// Rows and tokens of this process.
    pub session: (usize, usize),
    /// Steps without an update, because a value was not finite.
    pub passed_over: u64,
    /// The first and the last training record.
    pub train: (Record, Record),
    /// The evaluations before the first step and after the last.
    pub eval: Option<(Record, Record)>,
    /// The best checkpoint by `run.metric_for_best_model`, and its figure.
    pub best: Option<(PathBuf, f64)>,
    /// Samples before and after, where the run is on the grammar's stories.
    pub story: Option<Report>,
    /// Where the time of the steps went, if that was asked for; no part of `summary.json`.
    pub profile: Option<Profile>,
}

/// The file of a summary, in the run's folder; it is there when the run is finished.
pub(super) const SUMMARY: &str = "summary.json";

impl Summary {
    /// The summary as one object, as it lies in `summary.json`.
    pub fn to_json(&self) -> Value {
        let both = |(first, last): &(Record, Record)| json!({"first": first, "last": last});
        let best = |(path, value): &(PathBuf, f64)| json!({"checkpoint": path, "value": value});
        json!({
            "output_dir": self.output_dir,
            "steps": self.steps,
            "resumed_from": self.resumed_from,
            "non_finite_steps": self.passed_over,
            "rows": self.rows,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "rows_per_second": self.session.0 as f64 / self.seconds,
            "tokens_per_second": self.session.1 as f64 / self.seconds,
            "train": both(&self.train),
            "eval": self.eval.as_ref().map(both),
            "best": self.best.as_ref().map(best),
            "story": self.story,
        })
    }

    /// Writes it into the run's folder.
    pub(super) fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json());
        let text = text.map_err(|error| Error::failed(error.to_string()))? + "\n";
        write_file(&self.output_dir.join(SUMMARY), text.as_bytes())
    }
}
