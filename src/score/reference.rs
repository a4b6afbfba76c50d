//! Where the reference's log-probs come from: a file, the cache, or a scoring pass.

use std::borrow::Borrow;
use std::path::{Path, PathBuf};

use super::{Column, ScoreFile, Scorer, cache_name, score_rows, write};
use crate::config::{Config, MICRO_BATCH_TOKENS};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::io::cache;
use crate::io::output::Output;
use crate::loss::Role;
use crate::model::Decoder;
use crate::ranks::{Ranks, share};
use crate::run_dir::Timing;
use crate::session::{Event, Observer, Session, Stopwatch};

/// The reference's log-probs of each dataset, and its content hash.
pub struct Reference {
    /// `None` where the loss needs no reference.
    pub columns: Vec<Option<Column>>,
    /// `None` there, too.
    pub hash: Option<String>,
    /// Of the scoring pass, where one was made.
    pub timing: Option<Timing>,
}

/// How a reference's columns are computed, and where they are kept.
pub struct ReferencePass<'a> {
    /// Device, numerics and tokenizer.
    pub session: &'a Session,
    /// Whether sums of shared tokens are wanted.
    pub shared: bool,
    /// The most tokens computed at once.
    pub micro_batch_tokens: usize,
    /// The directory they are kept in; by default `expo/reference` in the user's cache directory.
    pub cache_dir: Option<&'a Path>,
}

impl Reference {
    /// No reference.
    pub fn none(datasets: &[Dataset]) -> Self {
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

/// Refuses a run that needs the reference itself and knows it only by the log-probs of another model
/// than the policy, whose content hash is `policy`.
pub fn check_is_known(config: &Config, policy: &str) -> Result<()> {
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

impl<'a> ReferencePass<'a> {
    /// That of a run.
    pub fn of_run(config: &'a Config, session: &'a Session) -> Self {
        Self {
            session,
            shared: config.loss.needs().shared,
            micro_batch_tokens: micro_batch_tokens(config),
            cache_dir: config.run.cache_dir.as_deref(),
        }
    }

    /// The columns that a score file has.
    ///
    /// # Errors
    /// If they were computed with another tokenizer or in another dtype, or the file lacks a row.
    pub fn from_file(&self, path: &Path, datasets: &[Dataset]) -> Result<Reference> {
        let file = ScoreFile::open(path)?;
        let dtype = self.session.compute.name();
        if file.scorer.dtype != dtype {
            let other = &file.scorer.dtype;
            return Err(Error::input(format!(
                "the log-probs were computed in {other}, the run computes in {dtype}"
            ))
            .at(path.display())
            .hint(format!(
                "score again in {} on the run's device, or set model.dtype",
                dtype.split(' ').next().unwrap_or(dtype)
            )));
        }
        if file.scorer.tokenizer != self.session.tokenizer.hash() {
            return Err(
                Error::input("the log-probs were made with another tokenizer")
                    .at(path.display())
                    .hint("score again with this model's tokenizer: expo score with this config"),
            );
        }
        Ok(Reference::new(
            self.columns(&file, datasets)?,
            file.scorer.model,
        ))
    }

    /// The columns of the model with this content hash: from the cache, else from a scoring pass with
    /// the weights that `model` loads, whose columns go into the cache.
    pub fn cached<M: Borrow<Decoder>>(
        &self,
        hash: String,
        datasets: &[Dataset],
        observe: Observer,
        model: impl FnOnce() -> Result<M>,
    ) -> Result<Reference> {
        let scorer = Scorer::new(hash, self.session);
        let directory = cache_directory(self.cache_dir);
        let kept = directory.as_ref().ok();
        let kept = kept.map(|directory| directory.join(cache_name(&scorer, datasets)));
        let ranks = &self.session.ranks;
        let found = kept.and_then(|path| Some((self.kept(&path, &scorer, datasets)?, path)));
        // Of several ranks the first one's counts, whose cache others may not see; they may still read a model.
        let columns = found.as_ref().filter(|_| ranks.is_first());
        let columns = columns.map(|(columns, _)| columns.clone());
        let of_first = share(&ranks.without_limit(), "the cache of log-probs", columns)?;
        if let Some(columns) = of_first.into_iter().next().flatten() {
            if let Some((_, path)) = &found {
                observe(Event::ReferenceFound(path));
            }
            return Ok(Reference::new(columns, scorer.model));
        }
        let model = model()?;
        let mut watch = Stopwatch::start();
        let budget = self.micro_batch_tokens;
        let columns = score_all(model.borrow(), datasets, budget, ranks, observe)?;
        watch.rows = columns.iter().map(Column::len).sum();
        let tokens = |dataset: &Dataset| {
            let rows = dataset.distinct().into_iter();
            rows.map(|row| dataset.tokens(row, Role::ALL))
                .sum::<usize>()
        };
        watch.tokens = datasets.iter().map(tokens).sum();
        let timing = watch.read(0);
        let kept = directory.and_then(|directory| {
            let path = directory.join(cache_name(&scorer, datasets));
            match ranks.is_first() {
                true => write(&Output::File(path), datasets, &columns, &scorer),
                false => Ok(()),
            }
        });
        if let Err(error) = kept {
            let what = format!("{error}; the reference's log-probs are not kept for another run");
            observe(Event::Warning(&what));
        }
        let columns = columns.into_iter().zip(datasets);
        let columns = columns
            .map(|(column, dataset)| column.repeated(dataset))
            .collect();
        Ok(Reference {
            timing: Some(timing),
            ..Reference::new(columns, scorer.model)
        })
    }

    /// What a file of the cache has; one that cannot be read is made again: it is ours, not the user's.
    fn kept(&self, path: &Path, scorer: &Scorer, datasets: &[Dataset]) -> Option<Vec<Column>> {
        let file = path.is_file().then(|| ScoreFile::open(path).ok())??;
        let columns = self.columns(&file, datasets).ok()?;
        (file.scorer == *scorer).then_some(columns)
    }

    fn columns(&self, file: &ScoreFile, datasets: &[Dataset]) -> Result<Vec<Column>> {
        let columns = datasets.iter();
        columns
            .map(|dataset| file.column(dataset, self.shared))
            .collect()
    }
}

/// Tokens scored at once by a run. The parts of a batch have no meaning where there is no optimizer
/// step.
pub fn micro_batch_tokens(config: &Config) -> usize {
    config
        .batch
        .micro_batch_tokens
        .unwrap_or(MICRO_BATCH_TOKENS)
}

/// Scores the distinct examples of each dataset separately, so that the sums do not depend on how they will
/// be used.
pub(super) fn score_all(
    model: &Decoder,
    datasets: &[Dataset],
    micro_batch_tokens: usize,
    ranks: &Ranks,
    observe: Observer,
) -> Result<Vec<Column>> {
    let distinct: Vec<Vec<usize>> = datasets.iter().map(Dataset::distinct).collect();
    let total = distinct.iter().map(Vec::len).sum();
    let (mut before, mut computed) = (0, 0);
    let mut columns = Vec::new();
    observe(Event::Scoring {
        done: 0,
        total,
        tokens: computed,
    });
    for (dataset, rows) in datasets.iter().zip(&distinct) {
        let mut counted = 0;
        let progress = |done: usize| {
            computed += (rows[counted..done].iter())
                .map(|&row| dataset.tokens(row, Role::ALL))
                .sum::<usize>();
            counted = done;
            observe(Event::Scoring {
                done: before + done,
                total,
                tokens: computed,
            });
        };
        columns.push(score_rows(
            model,
            dataset,
            rows,
            micro_batch_tokens,
            ranks,
            progress,
        )?);
        before += rows.len();
    }
    Ok(columns)
}

/// Where columns and samples are kept between runs: `cache_dir` where it is set, else
/// `expo/reference` in the user's cache directory. It is made, if it is not there.
///
/// # Errors
/// If there is no cache directory, or none can be made.
pub fn cache_directory(cache_dir: Option<&Path>) -> Result<PathBuf> {
    let directory = match cache_dir {
        Some(directory) => directory.to_owned(),
        None => cache::root()
            .ok_or_else(|| {
                Error::input("no cache directory: HOME is not set").hint("set run.cache_dir")
            })?
            .join("expo")
            .join("reference"),
    };
    std::fs::create_dir_all(&directory).map_err(|error| Error::io(&directory, &error))?;
    Ok(directory)
}
