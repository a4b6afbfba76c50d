//! The rows of a run as tokens.

use super::{Event, Observer, Session, check_length};
use crate::data::format::Format;
use crate::data::{DataConfig, Dataset, Files, Samples};
use crate::error::Result;
use crate::loss::Needs;

impl Session {
    /// The datasets of `[data]`: the training rows, then the evaluation rows and the unlabelled ones
    /// where there are any.
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
            let (data, needs) = (unlabelled(data, files)?, prompts_only(needs));
            let dataset = Dataset::open(files, &data, tokenizer, &needs, samples.as_ref())?;
            observe(Event::Census("unlabelled", &dataset.census));
            datasets.push(dataset);
        }
        Ok(datasets)
    }
}

/// The section as it is for unlabelled rows, which may be of any format.
pub fn unlabelled(data: &DataConfig, files: &Files) -> Result<DataConfig> {
    Ok(DataConfig {
        format: Format::of_file(files)?,
        ..data.clone()
    })
}

/// What is read of unlabelled rows: their prompts, with the samples that the loss wants of them.
pub fn prompts_only(needs: &Needs) -> Needs {
    Needs {
        all: needs.unlabelled,
        any: &[],
        batch: &[],
        scores: false,
        ..*needs
    }
}
