//! Rows as tokens, checked against the model.

use super::{Event, Observer, Session, check_length};
use crate::config::PreferenceData;
use crate::data::format::{Columns, Format};
use crate::data::{Dataset, Files, RowConfig, Samples};
use crate::error::{Error, Result};
use crate::io::hub::Download;
use crate::loss::Needs;

impl Session {
    fn check_length(&self, rows: &RowConfig) -> Result<()> {
        let folder = &self.folder;
        check_length(
            rows.length.max_length,
            folder.arch.longest_sequence(),
            &folder.path,
        )
    }

    /// The dataset of files by themselves, called `data`; the responses in `samples` join its rows.
    pub fn dataset(
        &self,
        files: &Files,
        rows: &RowConfig,
        samples: Option<&Files>,
        needs: &Needs,
        observe: Observer,
    ) -> Result<Dataset> {
        self.check_length(rows)?;
        fetch([files].into_iter().chain(samples), observe)?;
        let samples = self.samples(samples)?;
        self.open_split("data", files, rows, samples.as_ref(), needs, observe)
    }

    /// The datasets of `[data]`: the training rows, then the evaluation rows and the unlabelled ones
    /// where there are any. The responses in `samples` join their rows; `seed` chooses the rows of files
    /// whose weight has a fraction.
    pub fn datasets(
        &self,
        data: &PreferenceData,
        seed: u64,
        samples: Option<&Files>,
        needs: &Needs,
        observe: Observer,
    ) -> Result<Vec<Dataset>> {
        self.check_length(&data.rows)?;
        fetch(data.files(), observe)?;
        let rows = RowConfig {
            seed,
            ..data.rows.clone()
        };
        let samples = self.samples(samples)?;
        let samples = samples.as_ref();
        let files = [("train", Some(&data.train)), ("eval", data.eval.as_ref())];
        let mut datasets = Vec::new();
        for (split, files) in files {
            let Some(files) = files else { continue };
            datasets.push(self.open_split(split, files, &rows, samples, needs, observe)?);
        }
        if let Some(files) = &data.unlabelled {
            let (rows, needs) = (unlabelled(&rows, files)?, prompts_only(needs));
            datasets.push(self.open_split("unlabelled", files, &rows, samples, &needs, observe)?);
        }
        Ok(datasets)
    }

    fn samples(&self, files: Option<&Files>) -> Result<Option<Samples>> {
        files
            .map(|files| open_samples(files, self.folder.arch.vocab_size))
            .transpose()
    }

    fn open_split(
        &self,
        split: &'static str,
        files: &Files,
        rows: &RowConfig,
        samples: Option<&Samples>,
        needs: &Needs,
        observe: Observer,
    ) -> Result<Dataset> {
        let dataset = Dataset::open(files, rows, &self.tokenizer, needs, samples);
        let key = format!("data.{split}");
        let dataset = dataset.map_err(|error| of_missing(error, files, &key))?;
        observe(Event::Rows(split, &dataset.report));
        Ok(dataset)
    }
}

/// The responses in sample files.
///
/// # Errors
/// As of [`Samples::open`]; of a file that does not exist the error names `data.samples`.
pub fn open_samples(files: &Files, vocabulary: usize) -> Result<Samples> {
    Samples::open(files, vocabulary).map_err(|error| match is_missing(files) {
        true => error.at_key("data.samples").hint(
            "expo sample writes such a file; or set data.samples to \"auto\" to have them drawn",
        ),
        false => error,
    })
}

/// An error with the key that names the files, where one of them does not exist.
pub fn of_missing(error: Error, files: &Files, key: &str) -> Error {
    match is_missing(files) {
        true => error.at_key(key),
        false => error,
    }
}

fn is_missing(files: &Files) -> bool {
    files.paths().any(|path| !path.exists())
}

/// Downloads the datasets on the hub among files of rows.
pub fn fetch<'a>(files: impl IntoIterator<Item = &'a Files>, observe: Observer) -> Result<()> {
    let mut progress = |download: Download<'_>| observe(Event::Download(download));
    for files in files {
        files.fetch(&mut progress)?;
    }
    Ok(())
}

/// How unlabelled rows, which may be of any format, become examples.
pub fn unlabelled(rows: &RowConfig, files: &Files) -> Result<RowConfig> {
    Ok(RowConfig {
        format: Format::of_file(files)?,
        columns: Columns::default(),
        ..rows.clone()
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
