//! `run.json`: what was run, on what, and what must not change while it is gone on with.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::frozen::{Change, RunIdentity};
use crate::config::Config;
use crate::data::RowReport;
use crate::error::{Error, Result};
use crate::io::durable::{json_text, write_file};
use crate::io::untrusted;

/// The record of a run, whose presence marks a folder as one.
pub(super) const RUN: &str = "run.json";

/// What a run depends on, as content hashes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Hashes {
    pub policy: String,
    pub reference: Option<String>,
    pub tokenizer: String,
}

/// What `run.json` says must be the same.
pub(super) fn frozen_of(folder: &Path) -> Result<RunIdentity> {
    let path = folder.join(RUN);
    let wrong = |what: String| {
        Error::input(what)
            .at(path.display())
            .hint("the run is of another version of expo: begin anew in another run.output_dir")
    };
    let mut run = untrusted::json_object(&path, untrusted::CONFIG)?;
    serde_json::from_value(run["frozen"].take()).map_err(|e| wrong(format!("`frozen`: {e}")))
}

/// The kind of processor or GPU that the run of a folder was made on, as far as it says so.
pub(super) fn machine_of(folder: &Path) -> Option<String> {
    let run = untrusted::json(&folder.join(RUN), untrusted::CONFIG).ok()?;
    run["machine"].as_str().map(str::to_owned)
}

/// What `run.json` is made of.
pub(super) struct About<'a> {
    pub config: &'a Config,
    pub hashes: &'a Hashes,
    /// Of the training rows, the evaluation rows, the unlabelled rows.
    pub reports: [Option<&'a RowReport>; 3],
    pub frozen: &'a RunIdentity,
    /// The kind of processor or GPU.
    pub machine: &'a str,
}

impl About<'_> {
    /// Writes `config.toml` and `run.json` of a run that goes on after so many steps, with the changes
    /// made now after those of `before` that still count.
    pub fn write(&self, step: u64, before: Vec<Value>, now: &[Change]) -> Result<()> {
        let mut changes = before;
        changes.retain(|change| change["step"].as_u64().is_some_and(|at| at <= step));
        changes.extend(now.iter().map(
            |change| json!({"step": step, "key": change.key, "old": change.old, "new": change.new}),
        ));
        let folder = &self.config.run.output_dir;
        let config = self.config.to_toml()?;
        write_file(&folder.join("config.toml"), config.as_bytes())?;
        let [train, eval, unlabelled] = self.reports;
        let record = json!({
            "expo": env!("CARGO_PKG_VERSION"),
            "loss": self.config.loss.name(),
            "hashes": self.hashes,
            "train": train,
            "eval": eval,
            "unlabelled": unlabelled,
            "machine": self.machine,
            "frozen": self.frozen,
            "changes": changes,
        });
        write_file(&folder.join(RUN), json_text(&record)?.as_bytes())
    }
}

/// The changes that `run.json` has already.
pub(super) fn changes_of(folder: &Path) -> Vec<Value> {
    let run = untrusted::json(&folder.join(RUN), untrusted::CONFIG).unwrap_or_default();
    run["changes"].as_array().cloned().unwrap_or_default()
}
