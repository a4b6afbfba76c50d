//! What a command reports while it works.

use std::path::Path;

use super::header::RunHeader;
use crate::data::RowReport;
use crate::io::hub::Download;
use crate::run_dir::Record;

/// What a command reports while it works.
#[derive(Debug)]
pub enum Event<'a> {
    /// The device that the command computes on: `cpu`, or `cuda:0` and the kind of GPU.
    Device(&'a str),
    /// Download progress of a file of a model or a dataset.
    Download(Download<'a>),
    /// The row report of a dataset: `train`, `eval`, `unlabelled`, or `data` by itself.
    Rows(&'static str, &'a RowReport),
    /// Reference log-probs were found in a file.
    ReferenceFound(&'a Path),
    /// The reference is not the policy: its content hash.
    OtherReference(&'a str),
    /// Progress of a scoring pass; 0 examples at its start.
    Scoring {
        /// Examples scored.
        done: usize,
        /// Examples to score.
        total: usize,
        /// Tokens computed.
        tokens: usize,
    },
    /// The different prompts that responses are drawn to, and how many of them were cut.
    Prompts {
        /// Prompts.
        prompts: usize,
        /// Prompts that were cut to `max_prompt_length`.
        cut: usize,
        /// Of each reason for which rows are left out how many and which, in words.
        left_out: &'a [String],
    },
    /// Progress of sampling.
    Sampling {
        /// Responses sampled, those found in the file included.
        done: usize,
        /// Responses there will be.
        total: usize,
        /// Tokens sampled.
        tokens: usize,
    },
    /// A run of a sweep begins, or was found finished.
    SweepRun {
        /// Its number, from 1.
        number: usize,
        /// Runs of the sweep.
        total: usize,
        /// The loss and what was set.
        name: &'a str,
        /// Whether it was there already.
        found: bool,
    },
    /// The samples of the run are complete.
    SamplesKept {
        /// The file.
        path: &'a Path,
        /// Whether they are no samples of the reference itself, so that the KL estimated on them is
        /// biased.
        biased: bool,
    },
    /// Training begins.
    Start(&'a RunHeader),
    /// An optimizer step was made.
    Step {
        /// Steps made.
        step: u64,
        /// Rows and tokens of this step.
        rows: usize,
        /// Tokens computed with gradient in this step.
        tokens: usize,
    },
    /// A line was written to `metrics.jsonl`.
    Record(&'a Record),
    /// A fault that does not end the run, or a sign that it learns nothing.
    Warning(&'a str),
    /// A checkpoint or the final model is complete.
    Saved(&'a Path),
}

/// Receives events; the library prints nothing.
pub type Observer<'a> = &'a mut dyn FnMut(Event);
