//! What a run computes of its rows, counted from the rows themselves.
//!
//! Hides packing and micro-batches: both are those of a run's first epoch.

use serde::Serialize;

use crate::config::{Config, SampleSource};
use crate::data::pack::{Packed, micro_batches};
use crate::data::{Batches, Example, Orders};
use crate::error::{Error, Result};
use crate::loss::{Needs, Role};
use crate::model::arch::Architecture;
use crate::model::decoder::{read_by_head, tile_rows};
use crate::segment::Segment;

/// What a pass over packed examples computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Work {
    /// Tokens, each prompt's once. All blocks but the last compute them whole, the last one their
    /// queries, keys and values.
    pub tokens: f64,
    /// Tokens of which the last block computes the rest, too: those between the first and the last
    /// of each segment that the head reads.
    pub queries: f64,
    /// Tokens that are predicted.
    pub predictions: f64,
    /// Of these, those whose logits a backward pass computes again: of an example with more
    /// predictions than a tile has rows, all but its last tile.
    pub again: f64,
    /// Pairs of a token and one that it sees, itself included, summed over all blocks but the last.
    pub pairs: f64,
    /// The same pairs in the last block.
    pub last_pairs: f64,
}

impl Work {
    /// That of one example with the responses of these roles; of none, nothing.
    pub fn of(example: &Example, roles: &[Role], arch: &Architecture, gpu: bool) -> Self {
        if roles.is_empty() {
            return Self::default();
        }
        let packed = Packed::by_class([example], roles, &|length| arch.length_class(length));
        let (last, queries, _) = read_by_head(&packed);
        let seen = |segments: &[Segment], window: &Option<usize>| -> f64 {
            segments.iter().map(|segment| seen(segment, *window)).sum()
        };
        let (before, end) = arch.windows.split_at(arch.layers.saturating_sub(1));
        let (predictions, tile) = (packed.sources.len(), tile_rows(arch, gpu));
        let again = predictions.saturating_sub(1) / tile * tile;
        Self {
            tokens: packed.ids.len() as f64,
            queries: queries.len() as f64,
            predictions: predictions as f64,
            again: again as f64,
            pairs: before.iter().map(|w| seen(&packed.segments, w)).sum(),
            last_pairs: end.iter().map(|w| seen(&last, w)).sum(),
        }
    }

    /// `self + share * other`.
    #[must_use]
    pub fn plus(self, share: f64, other: Self) -> Self {
        Self {
            tokens: self.tokens + share * other.tokens,
            queries: self.queries + share * other.queries,
            predictions: self.predictions + share * other.predictions,
            again: self.again + share * other.again,
            pairs: self.pairs + share * other.pairs,
            last_pairs: self.last_pairs + share * other.last_pairs,
        }
    }
}

/// The pairs of a query of the segment and a token that it sees.
fn seen(segment: &Segment, window: Option<usize>) -> f64 {
    let window = window.unwrap_or(usize::MAX);
    // Of the first n tokens of a sequence.
    let first = |n: usize| {
        let (all, full) = (n.min(window), n.saturating_sub(window));
        all as f64 * (all + 1) as f64 / 2.0 + full as f64 * window as f64
    };
    let before = segment.prefix.len() + segment.queries.start - segment.own.start;
    first(before + segment.queries.len()) - first(before)
}

/// The examples of one split.
#[derive(Debug, Clone, Default)]
pub struct Split {
    /// Tokens, queries and predictions of each, computed with gradient.
    lengths: Vec<[usize; 3]>,
    /// Of each, the tokens of another copy of its prompt, where samples may need one: those that are longer
    /// than the model computes as it computes short ones.
    copies: Vec<usize>,
    prompt_tokens: usize,
    responses: usize,
    response_tokens: usize,
    /// Of the roles with gradient.
    trained: Work,
    /// Of the roles that are scored beforehand for the statistic of a batch.
    statistic: Work,
    /// Of all roles.
    scored: Work,
}

impl Split {
    /// Counts examples, as they are computed on the CPU or on a GPU.
    ///
    /// # Errors
    /// Those of the examples.
    pub fn count(
        examples: impl IntoIterator<Item = Result<Example>>,
        arch: &Architecture,
        needs: &Needs,
        gpu: bool,
    ) -> Result<Self> {
        let roles = needs.trained();
        let mut split = Self::default();
        let longest = arch.cached_length().unwrap_or(arch.longest_sequence());
        for example in examples {
            let example = example?;
            let prompt = example.prompt.len();
            let differ = arch.length_class(prompt + 1) != arch.length_class(longest);
            split.copies.push(if differ { prompt } else { 0 });
            let work = Work::of(&example, &roles, arch, gpu);
            let length = [work.tokens, work.queries, work.predictions];
            split.lengths.push(length.map(|count| count as usize));
            split.prompt_tokens += example.prompt.len();
            split.responses += example.responses.len();
            split.response_tokens += example.responses.iter().map(|r| r.ids.len()).sum::<usize>();
            split.trained = split.trained.plus(1.0, work);
            let statistic = Work::of(&example, needs.batch, arch, gpu);
            split.statistic = split.statistic.plus(1.0, statistic);
            let scored = Work::of(&example, Role::ALL, arch, gpu);
            split.scored = split.scored.plus(1.0, scored);
        }
        Ok(split)
    }

    fn len(&self) -> usize {
        self.lengths.len()
    }
}

/// The most that is computed at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Largest {
    /// Tokens.
    pub tokens: usize,
    /// Tokens of which the last block computes more than keys and values.
    pub queries: usize,
    /// Tokens that are predicted.
    pub predictions: usize,
}

/// How the rows of a step are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// Into micro-batches of at most so many tokens.
    Tokens(usize),
    /// Into so many parts.
    Parts(usize),
}

impl Division {
    /// The division of a config.
    pub fn of(config: &Config) -> Self {
        let batch = &config.batch;
        match batch.gradient_accumulation_steps {
            Some(parts) => Self::Parts(parts),
            None => Self::Tokens(batch.micro_batch_tokens.unwrap_or(usize::MAX)),
        }
    }
}

/// The rows of a run.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Of labelled rows, then of unlabelled ones.
    lengths: Vec<[usize; 3]>,
    /// The rows of each step of the first epoch.
    steps: Vec<Vec<usize>>,
    /// Whether the run draws samples, as long as they may be.
    draws: bool,
    /// Labelled rows.
    pub labelled: usize,
    /// Rows of an epoch, unlabelled ones included.
    pub per_epoch: usize,
    /// Mean tokens of a prompt.
    pub prompt_tokens: f64,
    /// Mean tokens of a response.
    pub response_tokens: f64,
    /// Rows of all splits, once each.
    pub all: usize,
    /// Their responses.
    pub responses: usize,
    /// An epoch's work with gradient.
    pub trained: Work,
    /// An epoch's work beforehand, for the statistic of each batch.
    pub statistic: Work,
    /// An epoch's work if every batch is scored under the reference.
    pub referenced: Work,
    /// The work of one evaluation, without gradient.
    pub evaluated: Work,
    /// The work of scoring every row of all splits under the reference.
    pub scored: Work,
}

impl Rows {
    /// The rows of a run of `config`.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(
        config: &Config,
        train: Split,
        eval: Option<Split>,
        unlabelled: Option<Split>,
    ) -> Result<Self> {
        if train.len() == 0 {
            return Err(Error::input("no training row is usable"));
        }
        let more = unlabelled.unwrap_or_default();
        let batches = Batches {
            labelled: train.len(),
            unlabelled: more.len(),
            ratio: config.data.unlabelled_ratio,
            size: config.batch.batch_size,
            seed: config.run.seed,
            shuffle: config.data.shuffle,
        };
        let mut orders = Orders::default();
        let steps: Vec<Vec<usize>> = (0..batches.per_epoch())
            .map(|step| batches.rows(step, &mut orders))
            .collect();
        let per_epoch = steps.iter().map(Vec::len).sum::<usize>();
        // Unlabelled rows come around as often as it takes.
        let share = (per_epoch - train.len()) as f64 / more.len().max(1) as f64;
        let eval = eval.unwrap_or_default();
        let splits = [&train, &eval, &more];
        let sum = |count: fn(&Split) -> usize| splits.iter().map(|s| count(s)).sum::<usize>();
        let all = |work: fn(&Split) -> Work| {
            let works = splits.iter().map(|s| work(s));
            works.fold(Work::default(), |sum, work| sum.plus(1.0, work))
        };
        let prompts = train.prompt_tokens as f64 / train.len() as f64;
        Ok(Self {
            labelled: train.len(),
            per_epoch,
            prompt_tokens: prompts,
            response_tokens: train.response_tokens as f64 / train.responses.max(1) as f64,
            all: sum(Split::len),
            responses: sum(|split| split.responses),
            trained: train.trained.plus(share, more.trained),
            statistic: train.statistic.plus(share, more.statistic),
            referenced: train.scored.plus(share, more.scored),
            evaluated: eval.trained.plus(1.0, eval.statistic),
            scored: all(|split| split.scored),
            lengths: with_draws(
                config,
                [train.lengths, more.lengths].concat(),
                &[train.copies, more.copies].concat(),
            ),
            draws: draws(config),
            steps,
        })
    }

    /// Optimizer steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps.len() as u64
    }

    /// The most tokens of a row.
    pub fn longest(&self) -> usize {
        self.lengths
            .iter()
            .map(|[tokens, ..]| *tokens)
            .max()
            .unwrap_or(0)
    }

    /// The most tokens of a step.
    pub fn largest_step(&self) -> usize {
        let tokens = |rows: &Vec<usize>| rows.iter().map(|&row| self.lengths[row][0]).sum();
        self.steps.iter().map(tokens).max().unwrap_or(0)
    }

    /// The mean number of micro-batches of a step.
    pub fn micro_batches(&self, division: Division) -> f64 {
        let count = |rows: &Vec<usize>| self.divided(rows, division).len();
        let all: usize = self.steps.iter().map(count).sum();
        all as f64 / self.steps.len() as f64
    }

    /// The most that is computed at once. Tokens are those that the division allows, since another
    /// epoch may reach them; the others are of the first epoch.
    pub fn largest(&self, division: Division) -> Largest {
        let mut largest = Largest::default();
        for rows in &self.steps {
            for part in self.divided(rows, division) {
                let sum = |which: usize| -> usize {
                    rows[part.clone()]
                        .iter()
                        .map(|&row| self.lengths[row][which])
                        .sum()
                };
                largest.tokens = largest.tokens.max(sum(0));
                largest.queries = largest.queries.max(sum(1));
                largest.predictions = largest.predictions.max(sum(2));
            }
        }
        if let Division::Tokens(tokens) = division {
            largest.tokens = largest.tokens.max(tokens.min(self.largest_step()));
        }
        largest
    }

    /// These rows with at most so many tokens each; `None` where the run adds samples of unknown length.
    pub(super) fn within(&self, tokens: usize) -> Option<Self> {
        let mut rows = self.clone();
        for count in rows.lengths.iter_mut().flatten() {
            *count = (*count).min(tokens);
        }
        (!self.draws).then_some(rows)
    }

    fn divided(&self, rows: &[usize], division: Division) -> Vec<std::ops::Range<usize>> {
        match division {
            Division::Tokens(budget) => {
                let lengths: Vec<usize> = rows.iter().map(|&row| self.lengths[row][0]).collect();
                micro_batches(&lengths, budget)
            }
            Division::Parts(parts) => {
                let size = rows.len().div_ceil(parts);
                let starts = (0..rows.len()).step_by(size);
                starts
                    .map(|start| start..(start + size).min(rows.len()))
                    .collect()
            }
        }
    }
}

/// Whether the run draws samples itself: they are not there to be counted.
pub(super) fn draws(config: &Config) -> bool {
    let needs = config.loss.needs();
    let drawn = config.data.samples == Some(SampleSource::Auto);
    let of_reference = drawn && needs.all.contains(&Role::Sampled);
    of_reference || needs.on_policy
}

/// Adds to each row the most tokens that samples which the run draws may have, with the copies of prompts
/// that they may need.
fn with_draws(config: &Config, mut lengths: Vec<[usize; 3]>, copies: &[usize]) -> Vec<[usize; 3]> {
    if let (true, Some(sample)) = (draws(config), &config.sample) {
        let tokens = sample.num_samples
            * sample
                .max_new_tokens
                .min(config.data.rows.length.max_length);
        for (counts, copy) in lengths.iter_mut().zip(copies) {
            counts.iter_mut().for_each(|count| *count += tokens);
            counts[0] += copy;
        }
    }
    lengths
}
