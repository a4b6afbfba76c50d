//! The rows of a run as it would see them, without a model.
//!
//! *Why*: rows are looked at before a run is worth its time, on any machine. So nothing of the
//! weights is read or fetched; what a run checks of the rows is checked here too.

use super::open::check_length;
use super::{Event, Observer};
use crate::config::Config;
use crate::data::{Dataset, Inspection, Samples, Tokenizer};
use crate::error::{Error, Result};
use crate::model::arch::ConfigJson;
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
}

/// Reads the training rows, or those of evaluation if `eval`, as the run of `config` would, with a
/// closer look at the row of the number `row`.
pub fn show(config: &Config, eval: bool, row: Option<usize>, observe: Observer) -> Result<Shown> {
    let (model, data) = (&config.model, &config.data);
    let files = match eval {
        false => &data.train,
        true => data.eval.as_ref().ok_or_else(|| {
            Error::input("the config has no evaluation rows").hint("set data.eval")
        })?,
    };
    let mut progress = |download: Download<'_>| observe(Event::Download(download));
    let folder = resolve_tokenizer(
        &model.model_name_or_path,
        model.revision.as_deref(),
        &HubSettings::from_env(),
        &mut progress,
    )?;
    let tokenizer = Tokenizer::open(&folder)?;
    let path = folder.join("config.json");
    let json = ConfigJson::open(&path)?;
    let arch = family(&json).and_then(|family| (family.architecture)(&json));
    let arch = arch.map_err(|error| error.at(path.display()))?;
    check_length(data.max_length, arch.max_positions)?;
    tokenizer
        .check_fits(arch.vocab_size)
        .map_err(|error| error.at(folder.display()))?;
    let samples = data.samples.as_ref();
    let samples = samples
        .map(|files| Samples::open(files, &tokenizer))
        .transpose()?;
    let (needs, samples) = (config.loss.needs(), samples.as_ref());
    let (dataset, row) = match row {
        None => (
            Dataset::open(files, data, &tokenizer, &needs, samples)?,
            None,
        ),
        Some(row) => {
            let (dataset, row) = Dataset::inspect(files, data, &tokenizer, &needs, samples, row)?;
            (dataset, Some(row))
        }
    };
    Ok(Shown {
        dataset,
        row,
        tokenizer,
    })
}
