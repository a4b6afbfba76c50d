//! `summary.json`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::metrics::Record;
use super::names::SUMMARY;
use super::record::read_optional;
use super::warning::RunWarning;
use crate::error::Result;
use crate::io::number::{nan, or_nan};
use crate::lab::story::{Column, Estimate, Report};

/// The summary of a finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRecord {
    /// The run directory.
    #[serde(default)]
    pub output_dir: PathBuf,
    /// Optimizer steps made.
    #[serde(default)]
    pub steps: u64,
    /// The step of the checkpoint that the last process resumed from.
    #[serde(default)]
    pub resumed_from: Option<u64>,
    /// Steps without an update, because a value was not finite.
    #[serde(default)]
    pub non_finite_steps: u64,
    /// Training rows seen.
    #[serde(default)]
    pub rows: usize,
    /// Tokens computed with gradient.
    #[serde(default)]
    pub tokens: usize,
    /// Wall-clock seconds of training and evaluation of the last process.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub seconds: f64,
    /// Rows per second of the last process.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub rows_per_second: f64,
    /// Tokens per second of the last process.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub tokens_per_second: f64,
    /// Training metrics.
    #[serde(default)]
    pub train: FirstAndLast,
    /// Evaluation metrics, before the first step and after the last.
    #[serde(default)]
    pub eval: Option<FirstAndLast>,
    /// The best checkpoint by `run.metric_for_best_model`.
    #[serde(default)]
    pub best: Option<Best>,
    /// Samples before and after training, if the run is on the grammar's stories.
    #[serde(default)]
    pub story: Option<Report>,
    /// What the run warned of.
    #[serde(default)]
    pub warnings: Vec<RunWarning>,
    /// What the run did, in words: displacement, saturation, length.
    #[serde(default)]
    pub findings: Vec<String>,
}

/// The first and the last record of a kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FirstAndLast {
    /// The first.
    pub first: Record,
    /// The last.
    pub last: Record,
}

/// The best checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its path.
    pub checkpoint: PathBuf,
    /// Its metric.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub value: f64,
}

impl SummaryRecord {
    /// Reads the summary of a run directory; `None` if the run is not finished.
    ///
    /// # Errors
    /// If the file is no summary.
    pub fn open(directory: &Path) -> Result<Option<Self>> {
        read_optional(&directory.join(SUMMARY))
    }

    /// A metric of the last evaluation.
    pub fn evaluated(&self, name: &str) -> Option<f64> {
        self.eval.as_ref()?.last.get(name)?.as_f64()
    }

    /// An estimate on the stories that the policy tells after training; `None` if it is not finite.
    pub fn story_after(&self, of: impl Fn(&Column) -> Option<Estimate>) -> Option<f64> {
        let [_, after, ..] = &self.story.as_ref()?.columns;
        let value = of(after)?.value;
        value.is_finite().then_some(value)
    }
}
