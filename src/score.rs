//! Log-probs as a column: the scoring pass, its file and its cache.
//!
//! Hides how the reference's log-probs get to the training step: computed once per (model, tokens),
//! written as JSON lines, found again by content hash.
//!
//! *Why*: the reference never changes, so a second model in memory and a second forward pass in
//! every step are a waste. The file can come from another machine; its hashes say what it is of.

mod column;
mod file;
mod reference;
mod task;

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::pack::{micro_batches, packed_tokens};
use crate::data::{Dataset, Example, deal};
use crate::error::{Error, Result};
use crate::loss::Role;
use crate::model::Decoder;
use crate::model::head::ResponseScore;
use crate::ranks::{Ranks, share_results};
use crate::session::Session;

pub use column::Column;
pub use file::{ScoreFile, write};
pub use reference::{
    Reference, ReferencePass, cache_directory, check_is_known, micro_batch_tokens,
};
pub use task::{ScoreCounts, ScoreData, score_data, score_run};

/// Whose log-probs they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scorer {
    /// Content hash of the model.
    pub model: String,
    /// Hash of the tokenizer.
    pub tokenizer: String,
    /// Dtype of the computation, and where that tells, its device.
    pub dtype: String,
}

impl Scorer {
    /// The model with this content hash, as a session computes with it.
    pub fn new(model: String, session: &Session) -> Self {
        Self {
            model,
            tokenizer: session.tokenizer.hash().to_owned(),
            dtype: session.compute.name().to_owned(),
        }
    }
}

/// One response's log-probs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// log pi(y|x), summed over the scored tokens, in nats.
    pub log_prob: f64,
    /// Scored tokens.
    pub tokens: usize,
    /// The part of `log_prob` that is of the first min(|y_w|, |y_l|) tokens, for the answers of a
    /// pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<f64>,
}

/// Scores all responses of these examples without a gradient.
///
/// # Errors
/// [`Kind::NonFinite`](crate::error::Kind::NonFinite) naming the row where a log-prob is not finite.
pub fn score(model: &Decoder, examples: &[Example], micro_batch_tokens: usize) -> Result<Column> {
    let mut column = Column::default();
    scan(model, examples, micro_batch_tokens, |_, scores| {
        push(&mut column, scores);
    })?;
    Ok(column)
}

/// As [`score`], of these examples of a dataset, which ranks share; `progress` is told how many of them are
/// done.
///
/// # Errors
/// Also if the dataset cannot be read, or a rank fails.
pub fn score_rows(
    model: &Decoder,
    dataset: &Dataset,
    rows: &[usize],
    micro_batch_tokens: usize,
    ranks: &Ranks,
    mut progress: impl FnMut(usize),
) -> Result<Column> {
    let (lengths, batches) = batches_of(model, dataset, rows, micro_batch_tokens)?;
    // The batches are the same for any number of ranks, for what is computed together rounds alike.
    let cost = |range: &Range<usize>| lengths[range.clone()].iter().map(|&n| n as u64).sum();
    let costs: Vec<u64> = batches.iter().map(cost).collect();
    let own = &deal(&costs, ranks.size())[ranks.rank()];
    let own: Vec<Range<usize>> = own.iter().map(|&batch| batches[batch].clone()).collect();
    let of_all: usize = own.iter().map(Range::len).sum();
    let mut scored = Vec::with_capacity(of_all);
    let passed = pass(model, own.clone(), reader(dataset, rows), |_, scores| {
        scored.extend_from_slice(scores);
        progress(scored.len() * rows.len() / of_all);
    });
    let failed_at = own.iter().flat_map(Clone::clone).nth(scored.len());
    let places = own.into_iter().flatten();
    let scored: Vec<(usize, Vec<ResponseScore>)> = places.zip(scored).collect();
    // One may take much longer than another.
    let patient = ranks.without_limit();
    let own = passed.map(|()| scored);
    let mut all = share_results(&patient, "log-probs", own, failed_at.unwrap_or(0))?.concat();
    all.sort_by_key(|(place, _)| *place);
    let mut column = Column::default();
    for (_, scores) in all {
        push(&mut column, &[scores]);
    }
    progress(rows.len());
    Ok(column)
}

/// The packed tokens of examples, and the ranges of those that are computed together.
fn batches_of(
    model: &Decoder,
    dataset: &Dataset,
    rows: &[usize],
    micro_batch_tokens: usize,
) -> Result<(Vec<usize>, Vec<Range<usize>>)> {
    let class = |length| model.length_class(length);
    let lengths = rows.iter();
    let lengths = lengths.map(|&row| dataset.packed_tokens(row, Role::ALL, &class));
    let lengths: Vec<usize> = lengths.collect::<Result<_>>()?;
    let batches = micro_batches(&lengths, micro_batch_tokens);
    Ok((lengths, batches))
}

/// Reads ranges of these rows.
fn reader<'a>(
    dataset: &'a Dataset,
    rows: &'a [usize],
) -> impl Fn(Range<usize>) -> Result<Cow<'a, [Example]>> {
    |range| {
        let examples = rows[range].iter().map(|&row| dataset.example(row));
        Ok(Cow::Owned(examples.collect::<Result<_>>()?))
    }
}

/// As [`score`], for callers that need more of a response than its log-prob: `take` gets the examples,
/// in order and some at a time, with all that the head says of each one's responses.
pub fn scan(
    model: &Decoder,
    examples: &[Example],
    micro_batch_tokens: usize,
    take: impl FnMut(&[Example], &[Vec<ResponseScore>]),
) -> Result<()> {
    let class = |length| model.length_class(length);
    let lengths: Vec<usize> = examples
        .iter()
        .map(|e| packed_tokens(e, Role::ALL, &class))
        .collect();
    let batches = micro_batches(&lengths, micro_batch_tokens);
    let read = |range: Range<usize>| Ok(Cow::Borrowed(&examples[range]));
    pass(model, batches, read, take)
}

/// As [`scan`], of these examples of a dataset.
pub fn scan_rows(
    model: &Decoder,
    dataset: &Dataset,
    rows: &[usize],
    micro_batch_tokens: usize,
    take: impl FnMut(&[Example], &[Vec<ResponseScore>]),
) -> Result<()> {
    let (_, batches) = batches_of(model, dataset, rows, micro_batch_tokens)?;
    pass(model, batches, reader(dataset, rows), take)
}

fn pass<'a>(
    model: &Decoder,
    batches: Vec<Range<usize>>,
    read: impl Fn(Range<usize>) -> Result<Cow<'a, [Example]>>,
    mut take: impl FnMut(&[Example], &[Vec<ResponseScore>]),
) -> Result<()> {
    for range in batches {
        let batch = read(range)?;
        let scores = model.score(&model.pack(batch.iter(), Role::ALL))?;
        for (example, scores) in batch.iter().zip(&scores) {
            if scores.iter().any(|score| !score.log_prob.is_finite()) {
                let log_probs: Vec<f64> = scores.iter().map(|score| score.log_prob).collect();
                let what = format!(
                    "row {}: log-probs {log_probs:?} are not finite",
                    example.row
                );
                return Err(Error::non_finite(what));
            }
        }
        take(&batch, &scores);
    }
    Ok(())
}

fn push(column: &mut Column, scores: &[Vec<ResponseScore>]) {
    let score = |s: &ResponseScore| Score {
        log_prob: s.log_prob,
        tokens: s.tokens,
        shared: s.shared,
    };
    for scores in scores {
        column.push(scores.iter().map(score));
    }
}

/// The name of a cached column: a hash of everything it depends on.
pub fn cache_name(scorer: &Scorer, datasets: &[Dataset]) -> String {
    let mut hasher = Sha256::new();
    for part in [&scorer.model, &scorer.tokenizer, &scorer.dtype] {
        hasher.update(part);
        hasher.update([0]);
    }
    for dataset in datasets {
        hasher.update(&dataset.fingerprint);
    }
    format!("{:.32}.jsonl", format!("{:x}", hasher.finalize()))
}
