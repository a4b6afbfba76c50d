//! The rows of a run as it would see them, without a model.
//!
//! *Why*: rows are looked at before a run is worth its time, on any machine. So nothing of the
//! weights is read or fetched; what a run checks of the rows is checked here too.

mod lint;

use std::path::PathBuf;

use crate::config::{ModelConfig, PreferenceData, RowsConfig, SampleSource, Source};
use crate::data::format::Format;
use crate::data::{Dataset, Files, Inspection, Look, Tokenizer, look};
use crate::error::{Error, Result};
use crate::io::model_dir::{CONFIG, ModelFiles};
use crate::loss::{Needs, Role};
use crate::model::arch::{Architecture, ConfigJson};
use crate::model::family::family;
use crate::model::weights::head;
use crate::session::{
    Observer, check_length, fetch, find_tokenizer, of_missing, open_samples, prompts_only,
    unlabelled,
};

pub use lint::{LintedSplit, TokenReport, lint_files, lint_run};

/// What there is to show.
pub struct Shown {
    /// The rows as tokens.
    pub dataset: Dataset,
    /// The row that was asked for.
    pub row: Option<Inspection>,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// The model's shape.
    pub arch: Architecture,
    /// The file of `data.samples`, where it does not exist yet: the rows are without samples.
    pub missing_samples: Option<PathBuf>,
}

/// The rows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowSplit {
    /// Those of `data.train`.
    Train,
    /// Those of `data.eval`.
    Eval,
    /// Those of `data.unlabelled`.
    Unlabelled,
}

/// Reads the rows of a split as a run would, with a closer look at the row of the number `row`. Samples
/// that the run would draw itself, or whose file does not exist yet, are left out.
pub fn show(
    config: &RowsConfig,
    split: RowSplit,
    row: Option<usize>,
    observe: Observer,
) -> Result<Shown> {
    let (model, data) = (&config.model, &config.data);
    let (mut rows, mut needs) = (data.rows.clone(), config.needs);
    rows.seed = config.seed;
    let named = |files: &Option<Files>, key: &str| {
        files.clone().ok_or_else(|| {
            Error::input(format!("the config has no data.{key}"))
                .hint("name another split")
                .option("split", "")
        })
    };
    let files = match split {
        RowSplit::Train => data.train.clone(),
        RowSplit::Eval => named(&data.eval, "eval")?,
        RowSplit::Unlabelled => named(&data.unlabelled, "unlabelled")?,
    };
    fetch([&files], observe)?;
    if split == RowSplit::Unlabelled {
        rows = unlabelled(&rows, &files)?;
        needs = prompts_only(&needs);
    }
    // Prompts to be sampled have nothing to learn.
    if !config.names_a_loss && *rows.format.of(&files, &rows.columns)? == *Format::PROMPTS {
        needs.all = &[];
    }
    let mut missing_samples = None;
    let samples = match &data.samples {
        Some(SampleSource::Files(files)) => {
            missing_samples = files.paths().find(|path| !path.exists());
            match &missing_samples {
                Some(_) => {
                    needs = without_samples(&needs);
                    None
                }
                None => Some(files),
            }
        }
        Some(SampleSource::Auto) => {
            needs = without_samples(&needs);
            None
        }
        None => None,
    };
    let (name, revision) = (&model.model_name_or_path, model.revision.as_deref());
    let folder = find_tokenizer(name, revision, observe)?;
    let of_model = ModelFiles::open(&folder)?;
    let (tokenizer, of_model) = Tokenizer::with(&of_model, &rows.tokens.chat)?;
    let arch = architecture(&of_model)?;
    let fits = check_length(rows.length.max_length, arch.longest_sequence(), &folder);
    if row.is_none() {
        // A row that is not there is reported before a length that does not fit.
        fits.clone()?;
    }
    tokenizer
        .check_fits(arch.vocab_size)
        .map_err(|error| error.at(folder.display()))?;
    let samples = samples
        .map(|files| open_samples(files, arch.vocab_size))
        .transpose()?;
    let samples = samples.as_ref();
    let key = match split {
        RowSplit::Train => "data.train",
        RowSplit::Eval => "data.eval",
        RowSplit::Unlabelled => "data.unlabelled",
    };
    let (dataset, row) = match row {
        None => {
            let dataset = Dataset::open(&files, &rows, &tokenizer, &needs, samples);
            (
                dataset.map_err(|error| of_missing(error, &files, key))?,
                None,
            )
        }
        Some(row) => {
            let (dataset, row) = Dataset::inspect(&files, &rows, &tokenizer, &needs, samples, row)?;
            (dataset, Some(row))
        }
    };
    fits?;
    Ok(Shown {
        dataset,
        row,
        tokenizer,
        arch,
        missing_samples,
    })
}

/// Looks at files of rows without a config, downloading those on the hub.
///
/// # Errors
/// As of [`look`].
pub fn look_at(
    files: &Files,
    format: Option<&'static Format>,
    row: Option<usize>,
    observe: Observer,
) -> Result<Look> {
    fetch([files], observe)?;
    look(files, format, row)
}

/// As [`show`] of the row that a look at files showed, with the tokenizer and template of a model and
/// in the lengths that it can hold; `overrides` are of keys of `[data]` that say how rows are read.
pub fn show_file(
    model: &str,
    files: &Files,
    look: &Look,
    overrides: &[String],
    observe: Observer,
) -> Result<Shown> {
    let mut data = PreferenceData::new(look.format, files.clone());
    data.rows.columns = look.columns.clone();
    data.rows.tokens.apply_chat_template = look.apply_chat_template;
    let source = Source::of_rows(&data, overrides)?;
    let mut data = source.rows()?;
    let folder = find_tokenizer(model, None, observe)?;
    let positions = architecture(&ModelFiles::open(&folder)?)?.longest_sequence();
    data.rows.length = data.rows.length.within(positions);
    data.rows.max_invalid_fraction = 1.0;
    let needs = match look.answers().count() {
        0 => Needs {
            all: &[],
            ..Needs::pair()
        },
        1 => Needs {
            all: &[],
            any: &[Role::Chosen, Role::Rejected],
            ..Needs::pair()
        },
        _ => Needs::pair(),
    };
    let config = RowsConfig {
        model: ModelConfig::new(model),
        data,
        needs,
        names_a_loss: true,
        seed: 0,
    };
    show(&config, RowSplit::Train, Some(look.row.0), observe).map_err(|error| source.locate(error))
}

/// The shape of the reference where it is another model than the policy.
pub fn reference_shape(model: &ModelConfig, observe: Observer) -> Result<Option<Architecture>> {
    let Some(name) = &model.reference else {
        return Ok(None);
    };
    let shape = find_tokenizer(name, model.reference_revision.as_deref(), observe)
        .and_then(|folder| architecture(&ModelFiles::open(&folder)?));
    shape
        .map(Some)
        .map_err(|error| error.at_key("model.reference"))
}

fn architecture(files: &ModelFiles) -> Result<Architecture> {
    let config = ConfigJson::of(&files.get(CONFIG))?;
    let arch = (family(&config)?.architecture)(&config)?;
    // Where the weights are there, they decide whether the head is tied; they may well not be.
    Ok(head::as_stored(files.directory(), arch.clone()).unwrap_or(arch))
}

fn without_samples(needs: &Needs) -> Needs {
    Needs {
        all: match needs.all {
            [Role::Sampled] => &[],
            // No loss has samples and not a pair.
            _ if needs.all.contains(&Role::Sampled) => &[Role::Chosen, Role::Rejected],
            all => all,
        },
        optional: &[],
        ..*needs
    }
}
