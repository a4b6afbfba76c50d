//! A preference set under a model and its reference, for whoever evaluates it.
//!
//! Hides what is loaded when: the model is gone before the reference is there, and a reference that
//! was scored before, or is the model itself, is not loaded at all.

use std::path::PathBuf;
use std::slice;

use crate::config::ModelConfig;
use crate::data::pack::packed_tokens;
use crate::data::{Example, Files, RowConfig};
use crate::error::Result;
use crate::loss::{Needs, Role, Scored};
use crate::model::head::ResponseScore;
use crate::score::{Column, ReferencePass, Score, scan_rows};
use crate::session::{Event, Observer, Session, check_length};

/// A preference set to evaluate.
#[derive(Debug)]
pub struct PairRows {
    /// The model, and its reference if there is one.
    pub model: ModelConfig,
    /// The files of rows.
    pub files: Files,
    /// How rows become examples.
    pub rows: RowConfig,
    /// Responses drawn from the reference, which join their rows.
    pub samples: Option<Files>,
    /// A file of the reference's log-probs.
    pub reference_log_probs: Option<PathBuf>,
    /// What is read of a row.
    pub needs: Needs,
    /// The most tokens computed at once.
    pub micro_batch_tokens: usize,
    /// Whether the length limits give way to models that can hold less.
    pub shrink: bool,
}

/// A preference set under a model.
#[derive(Debug)]
pub struct Pairs {
    /// The numbers of the rows that can be used, in order.
    pub rows: Vec<usize>,
    /// Their responses under the model and, where there is one, the reference; else that is NaN.
    pub examples: Vec<Scored>,
    /// The model's content hash.
    pub policy: String,
    /// That of the reference, if there is one.
    pub reference: Option<String>,
}

/// Scores every response under the model and, if the config names one, under the reference, whose
/// log-probs are kept for the next time.
///
/// # Errors
/// [`Kind::NonFinite`](crate::error::Kind::NonFinite) naming the row where a log-prob is not finite.
pub fn score_pairs(pairs: &PairRows, observe: Observer) -> Result<Pairs> {
    let session = Session::open(&pairs.model, observe)?;
    let session = session.with_chat(&pairs.rows.tokens.chat)?;
    let separate = session.reference(observe)?;
    let shapes = [Some(&session.folder), separate];
    let positions = shapes
        .into_iter()
        .flatten()
        .map(|f| f.arch.longest_sequence());
    let positions = positions.min().unwrap_or(usize::MAX);
    let mut rows = pairs.rows.clone();
    if pairs.shrink {
        rows.length = rows.length.within(positions);
    }
    if let Some(folder) = separate {
        session.check_same_tokens(folder)?;
        check_length(
            rows.length.max_length,
            folder.arch.longest_sequence(),
            &folder.path,
        )
        .map_err(|error| error.at("the reference"))?;
    }
    let pass = ReferencePass {
        session: &session,
        shared: pairs.needs.shared,
        micro_batch_tokens: pairs.micro_batch_tokens,
        cache_dir: None,
    };
    let samples = pairs.samples.as_ref();
    let dataset = session.dataset(&pairs.files, &rows, samples, &pairs.needs, observe)?;
    let dataset = &dataset;
    // A file that does not have these rows is refused before anything is computed.
    let found = match &pairs.reference_log_probs {
        None => None,
        Some(path) => {
            let found = pass.from_file(path, slice::from_ref(dataset))?;
            observe(Event::ReferenceFound(path));
            Some(found)
        }
    };
    let (model, policy) = session.load()?;
    let (mut numbers, mut examples) = (Vec::new(), Vec::new());
    let mut column = Column::default();
    let mut tokens = 0;
    let total = dataset.len();
    let mut tell = |done, tokens| {
        observe(Event::Scoring {
            done,
            total,
            tokens,
        })
    };
    tell(0, 0);
    let order: Vec<usize> = (0..total).collect();
    let class = |length| model.length_class(length);
    scan_rows(
        &model,
        dataset,
        &order,
        pairs.micro_batch_tokens,
        |batch, scores| {
            for (example, scores) in batch.iter().zip(scores) {
                tokens += packed_tokens(example, Role::ALL, &class);
                numbers.push(example.row);
                examples.push(alone(example, scores));
                column.push(scores.iter().map(|score| Score {
                    log_prob: score.log_prob,
                    tokens: score.tokens,
                    shared: score.shared,
                }));
            }
            tell(examples.len(), tokens);
        },
    )?;
    drop(model);
    let (columns, reference) = match (separate, found) {
        (Some(folder), _) => {
            let hash = folder.content_hash()?;
            let columns = if hash == policy {
                vec![Some(column)]
            } else {
                let load = || session.compute.load_known(folder, Some(&hash));
                pass.cached(hash.clone(), slice::from_ref(dataset), observe, load)?
                    .columns
            };
            (columns, Some(hash))
        }
        (None, Some(found)) => (found.columns, found.hash),
        (None, None) => (Vec::new(), None),
    };
    for column in columns.iter().flatten() {
        join(&mut examples, column);
    }
    Ok(Pairs {
        rows: numbers,
        examples,
        policy,
        reference,
    })
}

/// An example under the model alone.
fn alone(example: &Example, scores: &[ResponseScore]) -> Scored {
    let none = f64::NAN;
    let responses: Vec<_> = scores
        .iter()
        .map(|s| (s.role, s.log_prob, none, s.tokens as f64))
        .collect();
    let confidences: Vec<f64> = scores.iter().map(|s| s.confidence).collect();
    let shared: Vec<_> = scores
        .iter()
        .map(|s| (s.shared.unwrap_or(none), none))
        .collect();
    Scored::new(&responses, example.preference)
        .with_confidence(&confidences)
        .with_score_gap(example.score_gap())
        .with_shared(&shared)
}

/// Gives every response its log-prob under the reference.
fn join(examples: &mut [Scored], column: &Column) {
    for (index, example) in examples.iter_mut().enumerate() {
        for (response, score) in example.responses.iter_mut().zip(column.of(index)) {
            response.reference = score.log_prob;
            if let Some(shared) = &mut response.shared {
                shared.reference = score.shared.unwrap_or(f64::NAN);
            }
        }
    }
}
