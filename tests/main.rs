//! The integration tests: one binary, a module per subject.
//!
//! Where `EXPO_FIXTURES` names a folder of real data, models and oracle values, the tests that can
//! use it run on it too; without it they say that they were skipped.

#![allow(clippy::print_stderr, clippy::print_stdout)]

/// The papers' synthetic experiments: optima, training, figures.
mod adapters;
mod bandit;
/// The binary itself: what it writes and says, and how it exits.
mod cli;
/// Every config of the repository.
mod configs;
/// Rows, tokens, lengths, samples, the order of an epoch.
mod data;
/// README and guide: commands, configs, paths, generated tables.
mod docs;
/// `config.json` of every family: what it means, what is refused.
mod families;
/// A real pretrained model, where there is one.
mod gemma;
/// The GPU against the processor.
mod gpu;
/// What a step should take on a GPU.
mod gpu_model;
/// Damaged files of every format that is read.
mod hostile;
/// Models by name, against a server of our own.
mod hub;
/// Inputs beyond memory.
mod large;
/// Who may import whom.
mod layers;
/// Sequences whose length changes how they are computed.
mod lengths;
/// Losses and their gradients, and `expo loss`.
mod losses;
/// Whole models against the real fixtures, and against themselves computed another way.
mod models;
/// Whole models against transformers on the project's own fixtures.
mod oracle;
/// The package: its minimum Rust version and its contents.
mod package;
/// The comparison with other programs.
mod peer;
/// bf16, threads, unusual lengths.
mod precision;
/// Frozen matrices in few bits, against bitsandbytes.
mod quantized;
/// Several processes under the launchers of MPI.
#[cfg(target_os = "linux")]
mod ranks;
/// Pages of runs, in Rust and in a browser, and event files for TensorBoard.
mod report;
/// Responses drawn from models.
mod sample;
/// The grammar of the stories: exact numbers against enumeration, and the report.
mod story;
mod support;
/// What runs survive: kills, faults, signals, full disks. Run by `scripts/torture.sh`.
#[cfg(target_os = "linux")]
mod torture;
/// Runs against other programs' trajectories and their own.
mod train;
/// Weights whose files differ from what is computed with, or hold more.
mod weights;
