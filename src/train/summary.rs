//! What a finished run leaves to say.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Profile, Record};
use crate::checkpoint::write_file;
use crate::error::{Error, Result};
use crate::story::Report;

/// What a finished run leaves to say.
#[derive(Debug)]
pub struct Summary {
    /// Where everything is.
    pub output_dir: PathBuf,
    /// Optimizer steps made.
    pub steps: u64,
    /// Wall-clock seconds of training and evaluation.
    pub seconds: f64,
    /// Training rows seen.
    pub rows: usize,
    /// Tokens computed with gradient.
    pub tokens: usize,
    /// The first and the last training record.
    pub train: (Record, Record),
    /// The evaluations before the first step and after the last.
    pub eval: Option<(Record, Record)>,
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
        json!({
            "output_dir": self.output_dir,
            "steps": self.steps,
            "rows": self.rows,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "rows_per_second": self.rows as f64 / self.seconds,
            "tokens_per_second": self.tokens as f64 / self.seconds,
            "train": both(&self.train),
            "eval": self.eval.as_ref().map(both),
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
