//! The scoring pass by itself: log-probs into a file, for a later run or for people.

use std::path::Path;

use super::open::{Model, check_reference};
use super::reference::{budget, reference_folder, score_all, scorer};
use super::{Observer, datasets, device};
use crate::config::{Config, ModelConfig};
use crate::data::{DataConfig, Dataset};
use crate::error::{Error, Result};
use crate::load::load;
use crate::loss::{Needs, Role};
use crate::score::{Column, write};

/// What was scored.
#[derive(Debug)]
pub struct Scored {
    /// Rows.
    pub rows: usize,
    /// Responses of all rows.
    pub responses: usize,
    /// Tokens that have a log-prob.
    pub tokens: usize,
}

/// Scores the training and evaluation rows of a run under its reference, as the run itself would,
/// into the file `out`. A file that the config names for reference log-probs is not read.
pub fn score_run(config: &Config, out: &Path, observe: Observer) -> Result<Scored> {
    if !config.has_reference() {
        let name = config.loss.name();
        return Err(Error::input(format!("the loss {name} has no reference"))
            .hint("score rows under a model by itself")
            .option("model", "MODEL")
            .option("data", "FILE"));
    }
    device::open(&config.model.device).map_err(|e| e.at_key("model.device"))?;
    let mut model = Model::open(&config.model, observe)?;
    let datasets = datasets(config, &model, observe)?;
    if let Some(reference) = reference_folder(&config.model, observe)? {
        check_reference(&model.tokenizer, &reference)?;
        model.folder = reference;
    }
    run(
        &model,
        &config.model,
        &datasets,
        budget(config),
        out,
        observe,
    )
}

/// Rows to score by themselves.
#[derive(Debug)]
pub struct Rows {
    /// The model.
    pub model: ModelConfig,
    /// The rows, as training rows, with samples if there are any.
    pub data: DataConfig,
    /// The most tokens computed at once.
    pub micro_batch_tokens: usize,
    /// Whether the length limits give way to a model that can hold less.
    pub shrink: bool,
}

/// Scores every chosen, rejected and sampled response into the file `out`.
pub fn score_rows(mut rows: Rows, out: &Path, observe: Observer) -> Result<Scored> {
    let sampled: &[Role] = match rows.data.samples {
        Some(_) => &[Role::Sampled],
        None => &[],
    };
    let needs = Needs {
        all: sampled,
        any: &[Role::Chosen, Role::Rejected],
        unlabelled: sampled,
        ..Needs::referenced_pair()
    };
    device::open(&rows.model.device).map_err(|e| e.at_key("model.device"))?;
    let model = Model::open(&rows.model, observe)?;
    let positions = model.folder.arch.max_positions;
    if rows.shrink && rows.data.max_length > positions {
        rows.data.max_length = positions;
        rows.data.max_prompt_length = rows.data.max_prompt_length.min(positions / 2);
    }
    let datasets = model.datasets(&rows.data, &needs, observe)?;
    let budget = rows.micro_batch_tokens;
    run(&model, &rows.model, &datasets, budget, out, observe)
}

fn run(
    model: &Model,
    config: &ModelConfig,
    datasets: &[Dataset],
    micro_batch_tokens: usize,
    out: &Path,
    observe: Observer,
) -> Result<Scored> {
    let (decoder, hash) = load(&model.folder, config)?;
    let scorer = scorer(hash, &model.tokenizer, config)?;
    let datasets: Vec<&Dataset> = datasets.iter().collect();
    let columns = score_all(&decoder, &datasets, micro_batch_tokens, observe)?;
    write(out, &datasets, &columns, &scorer)?;
    Ok(Scored {
        rows: columns.iter().map(Column::len).sum(),
        responses: columns.iter().map(Column::responses).sum(),
        tokens: columns.iter().map(Column::tokens).sum(),
    })
}
