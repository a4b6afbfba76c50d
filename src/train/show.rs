//! The rows of a run as it would see them, without a model.
//!
//! *Why*: rows are looked at before a run is worth its time, on any machine. So nothing of the
//! weights is read or fetched; what a run checks of the rows is checked here too.

use std::path::{Path, PathBuf};

use super::open::{check_length, prompts_of, unlabelled};
use super::{Event, Observer};
use crate::config::Config;
use crate::data::{Dataset, Files, Inspection, Samples, Tokenizer};
use crate::error::{Error, Result};
use crate::loss::{Needs, Role};
use crate::model::arch::{Architecture, ConfigJson};
use crate::model::family::family;
use crate::model::hub::{Download, HubSettings, resolve_tokenizer};

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

/// Reads the rows of a split as the run of `config` would, with a closer look at the row of the
/// number `row`. Samples that the run would draw itself are left out: they are not there yet.
pub fn show(
    config: &Config,
    split: RowSplit,
    row: Option<usize>,
    observe: Observer,
) -> Result<Shown> {
    let model = &config.model;
    let mut data = config.data.clone();
    let mut needs = config.loss.needs();
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
    if split == RowSplit::Unlabelled {
        data = unlabelled(&data, &files)?;
        needs = prompts_of(&needs);
    }
    if data.draws_samples() {
        data.samples = None;
        needs = without_samples(&needs);
    }
    let (name, revision) = (&model.model_name_or_path, model.revision.as_deref());
    let folder = folder(name, revision, observe)?;
    let tokenizer = Tokenizer::open(&folder)?;
    let arch = architecture(&folder)?;
    check_length(data.max_length, arch.max_positions)?;
    tokenizer
        .check_fits(arch.vocab_size)
        .map_err(|error| error.at(folder.display()))?;
    let samples = data.samples.as_ref();
    let samples = samples
        .map(|files| Samples::open(files, &tokenizer))
        .transpose()?;
    let samples = samples.as_ref();
    let (dataset, row) = match row {
        None => (
            Dataset::open(&files, &data, &tokenizer, &needs, samples)?,
            None,
        ),
        Some(row) => {
            let (dataset, row) = Dataset::inspect(&files, &data, &tokenizer, &needs, samples, row)?;
            (dataset, Some(row))
        }
    };
    Ok(Shown {
        dataset,
        row,
        tokenizer,
        arch,
    })
}

/// The shape of the reference where it is another model than the policy.
pub fn reference_shape(config: &Config, observe: Observer) -> Result<Option<Architecture>> {
    let Some(name) = &config.model.reference else {
        return Ok(None);
    };
    let shape = folder(name, config.model.reference_revision.as_deref(), observe)
        .and_then(|folder| architecture(&folder));
    shape
        .map(Some)
        .map_err(|error| error.at_key("model.reference"))
}

/// The folder of a model whose weights are not needed.
fn folder(name: &str, revision: Option<&str>, observe: Observer) -> Result<PathBuf> {
    let mut progress = |download: Download<'_>| observe(Event::Download(download));
    resolve_tokenizer(name, revision, &HubSettings::from_env(), &mut progress)
}

fn architecture(folder: &Path) -> Result<Architecture> {
    let path = folder.join("config.json");
    let json = ConfigJson::open(&path)?;
    let arch = family(&json).and_then(|family| (family.architecture)(&json));
    arch.map_err(|error| error.at(path.display()))
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
