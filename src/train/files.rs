//! What a run writes beside models: its config, its record, its metrics.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::summary::SUMMARY;
use super::{Record, Timing};
use crate::checkpoint::{check_writable, remove_model, save, write_file};
use crate::config::{Config, RunConfig};
use crate::data::Census;
use crate::error::{Error, Result};
use crate::model::Decoder;

/// What a run depends on, as content hashes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Hashes {
    pub policy: String,
    pub reference: Option<String>,
    pub tokenizer: String,
}

/// The record of a run, whose presence marks a folder as one.
const RUN: &str = "run.json";

/// The output folder of a run.
pub(super) struct Files {
    folder: PathBuf,
    metrics: File,
    timings: File,
    checkpoints: Vec<PathBuf>,
}

/// Refuses an output folder that would mix two runs, before anything costly is done.
pub(super) fn check_output(run: &RunConfig) -> Result<()> {
    let folder = &run.output_dir;
    check_writable(&folder.join(RUN))?;
    if folder.join(RUN).exists() {
        return match run.overwrite {
            true => Ok(()),
            false => Err(Error::input("holds a run already")
                .at(folder.display())
                .hint("choose another run.output_dir, or set run.overwrite = true to replace it")),
        };
    }
    if folder.join("config.json").exists() {
        return Err(Error::input("holds a model that is not a run's")
            .at(folder.display())
            .hint("choose another run.output_dir"));
    }
    Ok(())
}

/// Refuses a run that would write over a model it reads.
pub(super) fn check_apart(output: &Path, model: &Path) -> Result<()> {
    let (Ok(output), Ok(model)) = (output.canonicalize(), model.canonicalize()) else {
        return Ok(());
    };
    if model.starts_with(&output) {
        return Err(
            Error::input("the run reads a model from its own output_dir")
                .at(model.display())
                .hint("choose another run.output_dir"),
        );
    }
    Ok(())
}

impl Files {
    /// Makes the folder, with `config.toml` and `run.json`, in place of an older run's.
    pub fn create(config: &Config, hashes: &Hashes, census: [Option<&Census>; 3]) -> Result<Self> {
        let folder = config.run.output_dir.clone();
        fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, &error))?;
        for path in checkpoints(&folder)? {
            fs::remove_dir_all(&path).map_err(|error| Error::io(&path, &error))?;
        }
        remove_model(&folder)?;
        remove_summary(&folder)?;
        write_file(&folder.join("config.toml"), config.to_toml()?.as_bytes())?;
        let [train, eval, unlabelled] = census;
        let record = json!({
            "expo": env!("CARGO_PKG_VERSION"),
            "loss": config.loss.name(),
            "hashes": hashes,
            "train": train,
            "eval": eval,
            "unlabelled": unlabelled,
        });
        let record =
            serde_json::to_string_pretty(&record).map_err(|e| Error::failed(e.to_string()))?;
        write_file(&folder.join(RUN), (record + "\n").as_bytes())?;
        let open = |name: &str| {
            let path = folder.join(name);
            File::create(&path).map_err(|error| Error::io(&path, &error))
        };
        let (metrics, timings) = (open("metrics.jsonl")?, open("timings.jsonl")?);
        Ok(Self {
            folder,
            metrics,
            timings,
            checkpoints: Vec::new(),
        })
    }

    /// Appends a line to `metrics.jsonl`.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record).map_err(|e| Error::failed(e.to_string()))?;
        append(&mut self.metrics, &self.folder.join("metrics.jsonl"), &line)
    }

    /// Appends a line to `timings.jsonl`, apart so that metrics are the same for the same run.
    pub fn timing(&mut self, timing: &Timing) -> Result<()> {
        let line = serde_json::to_string(timing).map_err(|e| Error::failed(e.to_string()))?;
        append(&mut self.timings, &self.folder.join("timings.jsonl"), &line)
    }

    /// Saves `checkpoint-{step}` and removes those over the limit, oldest first.
    pub fn checkpoint(
        &mut self,
        model: &Decoder,
        source: &Path,
        step: u64,
        config: &Config,
    ) -> Result<PathBuf> {
        let path = self.folder.join(format!("checkpoint-{step}"));
        save(model, source, &path, config.model.save_dtype)?;
        self.checkpoints.push(path.clone());
        let limit = config.run.save_total_limit.unwrap_or(usize::MAX);
        while self.checkpoints.len() > limit {
            let old = self.checkpoints.remove(0);
            fs::remove_dir_all(&old).map_err(|error| Error::io(&old, &error))?;
        }
        Ok(path)
    }
}

/// Removes the mark of a finished run.
fn remove_summary(folder: &Path) -> Result<()> {
    let path = folder.join(SUMMARY);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path, &error)),
        _ => Ok(()),
    }
}

fn append(file: &mut File, path: &Path, line: &str) -> Result<()> {
    file.write_all(format!("{line}\n").as_bytes())
        .map_err(|error| Error::io(path, &error))
}

fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| Error::io(folder, &error))?;
    let ours = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.strip_prefix("checkpoint-")
            .is_some_and(|step| step.parse::<u64>().is_ok())
    };
    Ok(entries
        .flatten()
        .map(|entry| entry.path())
        .filter(ours)
        .collect())
}
