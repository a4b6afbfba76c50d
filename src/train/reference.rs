//! Where the reference's log-probs come from: a file, the cache, or a scoring pass.

use std::path::{Path, PathBuf};

use super::files::check_apart;
use super::open::{check_length, check_reference, find};
use super::{Event, Observer, Stopwatch, Timing};
use crate::config::{Config, MICRO_BATCH_TOKENS, ModelConfig};
use crate::data::{Dataset, Tokenizer};
use crate::error::{Error, Result};
use crate::loss::Role;
use crate::model::{Decoder, device, numerics::Numerics, weights::ModelFolder};
use crate::score::{Column, ScoreFile, Scorer, cache_name, score_rows, write};

/// The reference's log-probs of each dataset, and its content hash.
pub(super) struct Reference {
    /// `None` where the loss needs no reference.
    pub columns: Vec<Option<Column>>,
    /// `None` there, too.
    pub hash: Option<String>,
    /// Of the scoring pass, where one was made.
    pub timing: Option<Timing>,
}

/// How a column is made, or kept.
pub(super) struct Making<'a> {
    /// In what and where it is computed.
    pub model: &'a ModelConfig,
    /// Whether sums of shared tokens are wanted.
    pub shared: bool,
    /// The most tokens computed at once.
    pub budget: usize,
    /// The folder it is kept in; by default that of [`cache_folder`].
    pub cache_dir: Option<&'a Path>,
}

impl<'a> Making<'a> {
    fn of(config: &'a Config) -> Self {
        Self {
            model: &config.model,
            shared: config.loss.needs().shared,
            budget: budget(config),
            cache_dir: config.run.cache_dir.as_deref(),
        }
    }
}

impl Reference {
    /// No reference.
    pub fn none(datasets: &[&Dataset]) -> Self {
        Self {
            columns: datasets.iter().map(|_| None).collect(),
            hash: None,
            timing: None,
        }
    }

    fn new(columns: Vec<Column>, hash: String) -> Self {
        Self {
            columns: columns.into_iter().map(Some).collect(),
            hash: Some(hash),
            timing: None,
        }
    }
}

/// Where a reference comes from that is not the policy itself.
pub(super) fn separate(
    config: &Config,
    tokenizer: &Tokenizer,
    datasets: &[&Dataset],
    observe: Observer,
) -> Result<Option<Reference>> {
    let folder = reference_folder(&config.model, observe)?;
    if let Some(folder) = &folder {
        check_apart(&config.run.output_dir, &folder.path)?;
    }
    if let Some(path) = &config.data.reference_log_probs {
        let reference = from_file(path, &Making::of(config), tokenizer, datasets)?;
        observe(Event::ReferenceFound(path));
        if let (Some(folder), Some(hash)) = (folder, &reference.hash)
            && folder.content_hash()? != *hash
        {
            return Err(
                Error::input("the log-probs are of another model than model.reference")
                    .at(path.display())
                    .hint("leave one of the two keys out, or score again"),
            );
        }
        return Ok(Some(reference));
    }
    let Some(folder) = folder else {
        return Ok(None);
    };
    check_reference(tokenizer, &folder)?;
    check_length(config.data.max_length, folder.arch.max_positions)
        .map_err(|error| error.at("model.reference"))?;
    let scorer = scorer(folder.content_hash()?, tokenizer, &config.model)?;
    let load = || Ok(crate::load::load(&folder, &config.model)?.0);
    cached(&Making::of(config), scorer, datasets, observe, load).map(Some)
}

/// The reference's folder where it is not the policy.
pub(super) fn reference_folder(
    config: &ModelConfig,
    observe: Observer,
) -> Result<Option<ModelFolder>> {
    let Some(name) = &config.reference else {
        return Ok(None);
    };
    let path = find(name, config.reference_revision.as_deref(), observe)
        .map_err(|error| error.at("model.reference"))?;
    ModelFolder::open(&path).map(Some)
}

/// Refuses a run that needs the reference itself and knows it only by the log-probs of another model
/// than the policy, whose content hash is `policy`.
pub(super) fn check_is_known(config: &Config, policy: &str) -> Result<()> {
    let (Some(path), None) = (&config.data.reference_log_probs, &config.model.reference) else {
        return Ok(());
    };
    if ScoreFile::open(path)?.scorer.model == policy {
        return Ok(());
    }
    Err(
        Error::input("the log-probs are of another model than the policy")
            .hint("name it in model.reference, for samples are drawn from it")
            .at(path.display()),
    )
}

/// The reference itself; `policy` is the folder that the policy came from.
pub(super) fn load(config: &Config, policy: &Path, observe: Observer) -> Result<Decoder> {
    let folder = model_folder(config, policy, observe)?;
    Ok(crate::load::load(&folder, &config.model)?.0)
}

/// The reference's folder; `policy` is the folder that the policy came from.
pub(super) fn model_folder(
    config: &Config,
    policy: &Path,
    observe: Observer,
) -> Result<ModelFolder> {
    match reference_folder(&config.model, observe)? {
        Some(folder) => Ok(folder),
        None => ModelFolder::open(policy),
    }
}

/// The policy, before its first update, as its own reference.
pub(super) fn of_policy(
    config: &Config,
    model: &Decoder,
    hash: &str,
    tokenizer: &Tokenizer,
    datasets: &[&Dataset],
    observe: Observer,
) -> Result<Reference> {
    let scorer = scorer(hash.to_owned(), tokenizer, &config.model)?;
    cached(&Making::of(config), scorer, datasets, observe, || Ok(model))
}

/// The identity of a column.
pub(super) fn scorer(model: String, tokenizer: &Tokenizer, config: &ModelConfig) -> Result<Scorer> {
    Ok(Scorer {
        model,
        tokenizer: tokenizer.hash().to_owned(),
        dtype: computation(config)?.to_owned(),
    })
}

/// In what log-probs are computed. A policy is its reference only where both are computed alike.
fn computation(config: &ModelConfig) -> Result<&'static str> {
    let device = device::open(&config.device).map_err(|error| error.at("model.device"))?;
    Ok(Numerics::new(config.dtype, !device.is_cpu()).name())
}

pub(super) fn from_file(
    path: &Path,
    making: &Making,
    tokenizer: &Tokenizer,
    datasets: &[&Dataset],
) -> Result<Reference> {
    let file = ScoreFile::open(path)?;
    let dtype = computation(making.model)?;
    if file.scorer.dtype != dtype {
        let other = &file.scorer.dtype;
        return Err(Error::input(format!(
            "the log-probs were computed in {other}, the run computes in {dtype}"
        ))
        .at(path.display())
        .hint(format!(
            "score again with --dtype {} and the run's --device, or set model.dtype",
            dtype.split(' ').next().unwrap_or(dtype)
        )));
    }
    if file.scorer.tokenizer != tokenizer.hash() {
        return Err(
            Error::input("the log-probs were made with another tokenizer")
                .at(path.display())
                .hint("score again with this model's tokenizer"),
        );
    }
    let columns = datasets
        .iter()
        .map(|dataset| file.column(dataset, making.shared))
        .collect::<Result<_>>()?;
    Ok(Reference::new(columns, file.scorer.model))
}

pub(super) fn cached<M: std::borrow::Borrow<Decoder>>(
    making: &Making,
    scorer: Scorer,
    datasets: &[&Dataset],
    observe: Observer,
    model: impl FnOnce() -> Result<M>,
) -> Result<Reference> {
    let folder = folder(making.cache_dir)?;
    let path = folder.join(cache_name(&scorer, datasets));
    if path.is_file() {
        // A cache that cannot be read is made again: it is ours, not the user's.
        if let Ok(file) = ScoreFile::open(&path)
            && let Ok(columns) = datasets
                .iter()
                .map(|dataset| file.column(dataset, making.shared))
                .collect()
            && file.scorer == scorer
        {
            observe(Event::ReferenceFound(&path));
            return Ok(Reference::new(columns, scorer.model));
        }
    }
    let model = model()?;
    let mut watch = Stopwatch::start();
    let columns = score_all(model.borrow(), datasets, making.budget, observe)?;
    watch.rows = datasets.iter().map(|dataset| dataset.len()).sum();
    let tokens = |dataset: &Dataset| {
        (0..dataset.len())
            .map(|row| dataset.tokens(row, Role::ALL))
            .sum::<usize>()
    };
    watch.tokens = datasets.iter().map(|dataset| tokens(dataset)).sum();
    let timing = watch.read(0);
    std::fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, &error))?;
    write(&path, datasets, &columns, &scorer)?;
    Ok(Reference {
        timing: Some(timing),
        ..Reference::new(columns, scorer.model)
    })
}

/// Tokens scored at once. The parts of a batch have no meaning where there is no optimizer step.
pub(super) fn budget(config: &Config) -> usize {
    config
        .batch
        .micro_batch_tokens
        .unwrap_or(MICRO_BATCH_TOKENS)
}

/// Scores each dataset by itself, so that the sums do not depend on how they will be used.
pub(super) fn score_all(
    model: &Decoder,
    datasets: &[&Dataset],
    micro_batch_tokens: usize,
    observe: Observer,
) -> Result<Vec<Column>> {
    let total = datasets.iter().map(|dataset| dataset.len()).sum();
    let (mut before, mut computed) = (0, 0);
    let mut columns = Vec::new();
    observe(Event::Scoring {
        done: 0,
        total,
        tokens: computed,
    });
    for dataset in datasets {
        let mut counted = 0;
        let progress = |done: usize| {
            computed += (counted..done)
                .map(|row| dataset.tokens(row, Role::ALL))
                .sum::<usize>();
            counted = done;
            observe(Event::Scoring {
                done: before + done,
                total,
                tokens: computed,
            });
        };
        let rows: Vec<usize> = (0..dataset.len()).collect();
        columns.push(score_rows(
            model,
            dataset,
            &rows,
            micro_batch_tokens,
            progress,
        )?);
        before += dataset.len();
    }
    Ok(columns)
}

/// `run.cache_dir`, else `expo` in the user's cache folder.
pub(super) fn cache_folder(config: &Config) -> Result<PathBuf> {
    folder(config.run.cache_dir.as_deref())
}

fn folder(cache_dir: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = cache_dir {
        return Ok(folder.to_owned());
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let folder = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    Ok(folder
        .ok_or_else(|| Error::input("no cache folder: HOME is not set").hint("set run.cache_dir"))?
        .join("expo")
        .join("reference"))
}
