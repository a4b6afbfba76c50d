//! From names in a config to a model folder, its tokenizer and rows as tokens, checked against each
//! other.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Event, Observer};
use crate::config::ModelConfig;
use crate::data::format::Format;
use crate::data::{DataConfig, Dataset, Files, Samples, Tokenizer};
use crate::error::{Error, Result};
use crate::loss::Needs;
use crate::model::hub::{Download, HubSettings, resolve_with};
use crate::model::weights::ModelFolder;

/// A model folder with its tokenizer. The weights are not loaded yet.
pub(super) struct Model {
    pub folder: ModelFolder,
    pub tokenizer: Arc<Tokenizer>,
}

impl Model {
    pub fn open(config: &ModelConfig, observe: Observer) -> Result<Self> {
        let name = &config.model_name_or_path;
        let path = find(name, config.revision.as_deref(), observe)?;
        let folder = ModelFolder::open(&path)?;
        let tokenizer = Arc::new(Tokenizer::open(&path)?);
        check_vocabulary(&tokenizer, &folder)?;
        Ok(Self { folder, tokenizer })
    }

    /// The training rows, then the evaluation rows and the unlabelled ones if there are any.
    pub fn datasets(
        &self,
        data: &DataConfig,
        needs: &Needs,
        observe: Observer,
    ) -> Result<Vec<Dataset>> {
        check_length(data.max_length, self.folder.arch.max_positions)?;
        let tokenizer = &self.tokenizer;
        let samples = data.samples.as_ref();
        let samples = samples
            .map(|files| Samples::open(files, tokenizer))
            .transpose()?;
        let files = [("train", Some(&data.train)), ("eval", data.eval.as_ref())];
        let mut datasets = Vec::new();
        for (split, files) in files {
            let Some(files) = files else { continue };
            let dataset = Dataset::open(files, data, tokenizer, needs, samples.as_ref())?;
            observe(Event::Census(split, &dataset.census));
            datasets.push(dataset);
        }
        if let Some(files) = &data.unlabelled {
            let (data, needs) = (unlabelled(data, files)?, prompts_of(needs));
            let dataset = Dataset::open(files, &data, tokenizer, &needs, samples.as_ref())?;
            observe(Event::Census("unlabelled", &dataset.census));
            datasets.push(dataset);
        }
        Ok(datasets)
    }
}

/// The section as it is for unlabelled rows, which may be of any format.
pub(super) fn unlabelled(data: &DataConfig, files: &Files) -> Result<DataConfig> {
    Ok(DataConfig {
        format: Format::of_file(files)?,
        ..data.clone()
    })
}

/// Of any row, the prompt with its samples.
pub(super) fn prompts_of(needs: &Needs) -> Needs {
    Needs {
        all: needs.unlabelled,
        any: &[],
        batch: &[],
        scores: false,
        ..*needs
    }
}

/// The folder of a model, downloaded if need be.
pub(super) fn find(name: &str, revision: Option<&str>, observe: Observer) -> Result<PathBuf> {
    let settings = HubSettings::from_env();
    let mut progress = |download: Download<'_>| {
        observe(Event::Download(download));
    };
    resolve_with(name, revision, &settings, &mut progress)
}

/// Refuses sequences that the model has no positions for.
pub(super) fn check_length(max_length: usize, positions: usize) -> Result<()> {
    if max_length <= positions {
        return Ok(());
    }
    Err(Error::input(format!(
        "max_length is {max_length}, the model was made for {positions} positions"
    ))
    .at_key("data.max_length")
    .hint(format!("at most {positions}")))
}

/// Refuses a tokenizer with ids that the embedding has no row for.
pub(super) fn check_vocabulary(tokenizer: &Tokenizer, folder: &ModelFolder) -> Result<()> {
    tokenizer
        .check_fits(folder.arch.vocab_size)
        .map_err(|error| error.at(folder.path.display()))
}

/// Refuses a reference that reads the policy's ids as other tokens.
pub(super) fn check_reference(tokenizer: &Tokenizer, folder: &ModelFolder) -> Result<()> {
    check_vocabulary(tokenizer, folder)?;
    tokenizer.check_same(&folder.path)
}
