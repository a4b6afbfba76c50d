//! `timings.jsonl`.
//!
//! *Why*: times differ between two runs of the same config, so they are kept apart from the metrics.

use serde::{Deserialize, Serialize};

use crate::io::number::{nan, or_nan};

/// What the steps since the last line took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The optimizer step at the end; 0 for the scoring pass of the reference.
    #[serde(default)]
    pub step: u64,
    /// Wall-clock seconds, without evaluations and saving.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub seconds: f64,
    /// CPU seconds of all threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Rows per wall-clock second.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub rows_per_second: f64,
    /// Tokens per wall-clock second.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub tokens_per_second: f64,
    /// Peak memory of the process so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Peak GPU memory of the process so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_gpu_memory_bytes: Option<u64>,
}

impl Timing {
    /// Its numbers by name, in the order of the file, without those that it does not have.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        let figures = [
            ("seconds", Some(self.seconds)),
            ("cpu_seconds", self.cpu_seconds),
            ("rows_per_second", Some(self.rows_per_second)),
            ("tokens_per_second", Some(self.tokens_per_second)),
            ("peak_memory_bytes", bytes(self.peak_memory_bytes)),
            ("peak_gpu_memory_bytes", bytes(self.peak_gpu_memory_bytes)),
        ];
        let known = figures.into_iter();
        known.filter_map(|(name, figure)| Some((name, figure.filter(|x| x.is_finite())?)))
    }
}

/// The mark of a run that was resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The step of the checkpoint that it was resumed from.
    #[serde(default)]
    pub step: u64,
    /// Always true.
    pub resumed: bool,
}

/// A line of `timings.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TimingLine {
    /// The run was resumed here: lines of later steps before this one were made again.
    Resumed(Resumed),
    /// What some steps took.
    Timing(Timing),
}
