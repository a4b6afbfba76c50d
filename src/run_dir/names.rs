//! The names of the files.

use std::path::{Path, PathBuf};

/// The record of a run; its presence marks a directory as a run's.
pub const RUN: &str = "run.json";
/// The resolved config.
pub const CONFIG: &str = "config.toml";
/// A line per training or evaluation record. Deterministic.
pub const METRICS: &str = "metrics.jsonl";
/// A line per training record: time, throughput, memory.
pub const TIMINGS: &str = "timings.jsonl";
/// Responses to the prompts of `run.eval_prompts`; absent if there are none.
pub const GENERATIONS: &str = "generations.jsonl";
/// The pairs with the extreme margins of the last evaluation; absent if it had no pairs.
pub const MARGINS: &str = "margins.json";
/// The steps that met a non-finite value; absent if none did.
pub const NON_FINITE: &str = "non_finite.jsonl";
/// The summary of a finished run; absent until then.
pub const SUMMARY: &str = "summary.json";
/// The directory of TensorBoard's event files.
pub const TENSORBOARD: &str = "tensorboard";
/// The name of the newest checkpoint, for people and scripts.
pub const LATEST: &str = "LATEST";

/// The files that a report of a run reads; checkpoints aside.
pub const FILES: [&str; 8] = [
    RUN,
    CONFIG,
    METRICS,
    TIMINGS,
    GENERATIONS,
    MARGINS,
    NON_FINITE,
    SUMMARY,
];

/// The name of the checkpoint after a step.
pub fn checkpoint_name(step: u64) -> String {
    format!("checkpoint-{step}")
}

/// The step of a path whose name is that of a checkpoint.
pub fn checkpoint_step(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("checkpoint-")?;
    let step: u64 = digits.parse().ok()?;
    (step.to_string() == digits).then_some(step)
}

/// The steps of the checkpoints in a directory, ascending; none if it cannot be read.
pub fn checkpoint_steps(directory: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| PathBuf::from(entry.file_name()));
    let mut steps: Vec<u64> = paths.filter_map(|path| checkpoint_step(&path)).collect();
    steps.sort_unstable();
    steps
}
