//! Whether a checkpoint, or everything of a run, is as it was written.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::record::frozen_of;
use super::state::State;
use crate::checkpoint::{Checkpoints, read_state};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::io::durable::{self, MANIFEST, parent};
use crate::io::model_dir;
use crate::run_dir::{
    CONFIG, GENERATIONS, Generation, MARGINS, METRICS, Margins, NON_FINITE, NonFiniteStep, RUN,
    Record, SUMMARY, SummaryRecord, TIMINGS, TimingLine, checkpoint_step,
};

/// A directory or file that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// The number of files and of their bytes, or what is wrong.
    pub outcome: Result<(usize, u64)>,
}

/// Reads everything that `folder`, a run or one checkpoint or model, has a checksum or a strict form
/// of: checkpoints, the final model, the record, the logs. Nothing is changed.
///
/// # Errors
/// If it is neither a run nor a folder with a manifest. What is damaged is no error, but found.
pub fn verify(folder: &Path) -> Result<Vec<Found>> {
    fs::metadata(folder).map_err(|error| Error::io(folder, &error))?;
    let checkpoints = Checkpoints::open(folder)?;
    if !folder.join(RUN).is_file() {
        if !folder.join(MANIFEST).is_file() && checkpoints.steps().is_empty() {
            return Err(Error::input(format!("has neither {RUN} nor {MANIFEST}"))
                .at(folder.display())
                .hint(
                    "name the output_dir of a run, one of its checkpoints, or a model expo wrote",
                ));
        }
        if checkpoints.steps().is_empty() {
            return Ok(vec![whole(folder)]);
        }
    }
    let mut found = Vec::new();
    let look = |path: PathBuf, outcome: Result<(usize, u64)>| Found { path, outcome };
    for &step in checkpoints.steps() {
        found.push(whole(&checkpoints.path(step)));
    }
    for path in checkpoints.damaged()? {
        let damaged = Error::input("was set aside").at(path.display());
        found.push(look(path, Err(damaged)));
    }
    let ended = folder.join(SUMMARY).is_file() && writes_model(folder);
    let of_model = [model_dir::CONFIG, model_dir::ADAPTER_CONFIG];
    if ended || of_model.iter().any(|name| folder.join(name).is_file()) {
        found.push(look(folder.to_owned(), durable::verify(folder)));
    }
    let record = folder.join(RUN);
    let size = |path: &Path| Ok((1, fs::metadata(path).map_or(0, |data| data.len())));
    let outcome = frozen_of(folder).and_then(|_| size(&record));
    found.push(look(record, outcome));
    type Check = fn(&Path) -> Result<()>;
    let checks: [(&str, Check); 6] = [
        (METRICS, lines::<Record>),
        (TIMINGS, lines::<TimingLine>),
        (GENERATIONS, lines::<Generation>),
        (NON_FINITE, lines::<NonFiniteStep>),
        (MARGINS, |path| Margins::open(parent(path)).map(drop)),
        (SUMMARY, |path| SummaryRecord::open(parent(path)).map(drop)),
    ];
    for (name, check) in checks {
        let path = folder.join(name);
        if path.is_file() {
            let outcome = check(&path).and_then(|()| size(&path));
            found.push(look(path, outcome));
        }
    }
    Ok(found)
}

/// Whether the run of a folder writes its final model, for all that its config says.
pub(super) fn writes_model(folder: &Path) -> bool {
    Config::open(&folder.join(CONFIG), &[]).map_or(true, |config| config.run.save_model)
}

/// A directory with a manifest, and the state of a checkpoint.
fn whole(folder: &Path) -> Found {
    let mut outcome = durable::verify(folder);
    if outcome.is_ok() && checkpoint_step(folder).is_some() {
        let place = |error: Error| error.at(folder.display());
        let state = read_state::<State>(folder);
        let state = state.and_then(|state| state.check().map_err(place));
        outcome = state.and(outcome);
    }
    Found {
        path: folder.to_owned(),
        outcome,
    }
}

fn lines<T: DeserializeOwned>(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let place = || format!("{}:{}", path.display(), number + 1);
        if !line.ends_with('\n') {
            return Err(Error::input("the last line has no end").at(place()));
        }
        serde_json::from_str::<T>(line)
            .map_err(|error| Error::input(format!("not a record: {error}")).at(place()))?;
    }
    Ok(())
}
