//! `expo data fetch`: downloads datasets from the hub into its cache.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use expo::config::{RowsConfig, Source};
use expo::data::Files;
use expo::error::{Error, Result};
use expo::io::hub::{DatasetFiles, DatasetName, Download};
use expo::session::Event;
use serde_json::{Value, json};

use super::super::answer;
use super::super::error::located;
use super::super::progress::Progress;

/// Download datasets from the hub, for use offline
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct FetchArgs {
    /// Download these: hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]
    #[arg(value_name = "DATASET", value_parser = str::parse::<Files>, required_unless_present = "config")]
    datasets: Vec<Files>,

    /// Download the datasets that this config names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set a key of the config; may be repeated, the last value wins
    #[arg(long, value_name = "SECTION.KEY=VALUE", requires = "config")]
    set: Vec<String>,

    /// Print one JSON object per dataset, each on its own line
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Downloads the files of a split, and nothing else, into the cache that Python's
huggingface_hub uses. A run that names the same dataset finds it there, also
offline (HF_HUB_OFFLINE=1). With --config, downloads the datasets of the config.

Prints for each dataset its commit, the number and size of its files, and their
directory. Write the commit as REVISION to pin the version.

HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE work as in
Python.

Examples:
  $ expo data fetch hub:HuggingFaceH4/ultrafeedback_binarized:train_prefs
  $ expo data fetch hub:Anthropic/hh-rlhf/harmless-base:train
  $ expo data fetch --config run.toml";

/// Runs the command.
pub fn run(args: &FetchArgs) -> anyhow::Result<()> {
    let mut all: Vec<Files> = args.datasets.clone();
    if let Some(config) = &args.config {
        let source = Source::open(config, &args.set)?;
        let named = RowsConfig::of(&source).map(|config| config.data.files().cloned().collect());
        let named: Vec<Files> = located(&source, named.map_err(anyhow::Error::from))?;
        all.extend(named);
    }
    let mut progress = Progress::new();
    let fetched = fetch(&all, &mut progress);
    progress.close();
    let mut text = String::new();
    for (name, files) in fetched? {
        let _ = match args.json {
            true => writeln!(text, "{}", object(&name, &files)),
            false => writeln!(text, "{}", table(&name, &files)),
        };
    }
    answer(&text)?;
    Ok(())
}

fn fetch(all: &[Files], progress: &mut Progress) -> Result<Vec<(DatasetName, DatasetFiles)>> {
    let mut fetched: Vec<(DatasetName, DatasetFiles)> = Vec::new();
    for files in all {
        let found = files.fetch(&mut |download: Download<'_>| {
            progress.show(Event::Download(download));
        })?;
        for dataset in found {
            if !fetched.contains(&dataset) {
                fetched.push(dataset);
            }
        }
    }
    match fetched.is_empty() {
        true => Err(
            Error::input("nothing to download: no dataset of the hub is named")
                .hint("write hub:OWNER/NAME[/CONFIG]:SPLIT[@REVISION]"),
        ),
        false => Ok(fetched),
    }
}

fn bytes(files: &DatasetFiles) -> u64 {
    let size = |path| std::fs::metadata(path).map_or(0, |found| found.len());
    files.paths.iter().map(size).sum()
}

fn object(name: &DatasetName, files: &DatasetFiles) -> Value {
    json!({
        "dataset": name.to_string(),
        "commit": files.commit,
        "bytes": bytes(files),
        "files": files.paths,
    })
}

fn table(name: &DatasetName, files: &DatasetFiles) -> String {
    let directory = files.paths.first().and_then(|path| path.parent());
    let directory = directory.map(|path| path.display().to_string());
    let megabytes = bytes(files) as f64 / 1e6;
    format!(
        "{name}\n  commit     {}\n  files      {}, {megabytes:.1} MB\n  directory  {}",
        files.commit,
        files.paths.len(),
        directory.unwrap_or_default(),
    )
}
