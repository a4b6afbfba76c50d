//! `run.json`: what was run, on what, and what must not change when the run is resumed.

use std::collections::BTreeMap;
use std::path::Path;

use super::identity::{self, RunIdentity};
use crate::config::Config;
use crate::data::RowReport;
use crate::error::{Error, Result};
use crate::io::durable::{json_text, write_file};
use crate::run_dir::{CONFIG, Change, Hashes, RUN, RowCounts, RunRecord};

/// What must be the same according to the record of a run directory.
pub(super) fn frozen_of(folder: &Path) -> Result<RunIdentity> {
    let hint = "the run is of another version of expo: begin anew in another run.output_dir";
    let record = RunRecord::open(folder).map_err(|error| match error.remedy() {
        None => error.hint(hint),
        Some(_) => error,
    })?;
    let missing = || {
        Error::input("`frozen` is missing")
            .at(folder.join(RUN).display())
            .hint(hint)
    };
    record.frozen.map(RunIdentity).ok_or_else(missing)
}

/// The kind of CPU or GPU that the run in a directory was made on, if it was recorded.
pub(super) fn machine_of(folder: &Path) -> Option<String> {
    RunRecord::open(folder).ok()?.machine
}

/// The changes that `run.json` has already.
pub(super) fn changes_of(folder: &Path) -> Vec<Change> {
    RunRecord::open(folder).unwrap_or_default().changes
}

/// What `run.json` is made of.
pub(super) struct About<'a> {
    pub config: &'a Config,
    pub hashes: &'a Hashes,
    /// Of the training rows, the evaluation rows, the unlabelled rows.
    pub reports: [Option<&'a RowReport>; 3],
    pub frozen: &'a RunIdentity,
    /// The kind of CPU or GPU.
    pub machine: &'a str,
}

impl About<'_> {
    /// Writes `config.toml` and `run.json` of a run that continues after `step` steps, with the changes
    /// made now after those of `before` that still count.
    pub fn write(&self, step: u64, before: Vec<Change>, now: &[identity::Change]) -> Result<()> {
        let mut changes = before;
        changes.retain(|change| change.step <= step);
        changes.extend(now.iter().cloned().map(|change| Change {
            step,
            key: change.key,
            old: change.old,
            new: change.new,
        }));
        let folder = &self.config.run.output_dir;
        let config = self.config.to_toml()?;
        write_file(&folder.join(CONFIG), config.as_bytes())?;
        let [train, eval, unlabelled] = self.reports.map(|report| report.map(RowCounts::from));
        let mut datasets = BTreeMap::new();
        for files in self.config.data.files() {
            let found = files.fetch(&mut |_| ())?.into_iter();
            datasets.extend(found.map(|(name, files)| (name.to_string(), files.commit)));
        }
        let record = RunRecord {
            expo: env!("CARGO_PKG_VERSION").into(),
            loss: self.config.loss.name(),
            hashes: self.hashes.clone(),
            train,
            eval,
            unlabelled,
            datasets,
            machine: Some(self.machine.into()),
            frozen: Some(self.frozen.0.clone()),
            changes,
        };
        write_file(&folder.join(RUN), json_text(&record)?.as_bytes())
    }
}
