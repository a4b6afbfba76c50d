//! The LM head and the loss's way into it: hidden states to summed log-probs, and their gradient
//! back, in tiles that never hold the logits of a whole batch.
//!
//! *Why*: most objectives are separable per example, so once an example's log-probs are known its
//! seeds are too, and the same tile of logits becomes the gradient. A second head pass is needed
//! only for an example that is longer than a tile.

use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::decoder::{Activations, Decoder};
use super::linear::Linear;
use super::norm::NormLayer;
use super::parameters::{Params, Weights};
use crate::data::pack::{Packed, PackedResponse};
use crate::error::Result;
use crate::kernels::device::from_host;
use crate::kernels::dropout::{Dropout, RowKeys};
use crate::kernels::token::{self, LogitTransform, TokenStatistics};
use crate::kernels::{Dst, elementwise, embedding};
use crate::loss::Role;

/// What the head says of one response.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ResponseScore {
    /// Its place in the example's responses.
    pub index: usize,
    /// What it is to its prompt.
    pub role: Role,
    /// log pi(y|x): the sum over response tokens, in nats.
    pub log_prob: f64,
    /// Scored tokens.
    pub tokens: usize,
    /// Sum over tokens of the softmax's entropy, in nats.
    pub entropy: f64,
    /// Tokens that were the most likely one.
    pub correct: usize,
    /// The part of `log_prob` that is of the first min(|y_w|, |y_l|) tokens; `None` where the example
    /// is no pair, or the response neither of its two.
    pub shared: Option<f64>,
    /// Mean over tokens of log pi_t - log sum_v pi_v^2, in nats; NaN without a scored token.
    pub confidence: f64,
}

/// A tile in work: rows of the batch's predictions with their logits.
struct Tile {
    rows: Range<usize>,
    /// (rows, vocabulary).
    logits: Tensor,
    /// (rows), u32.
    labels: Tensor,
    statistics: Vec<TokenStatistics>,
    /// Of the rows, where the head's low-rank product drops some of its input.
    keys: Option<RowKeys>,
}

impl Decoder {
    /// The scores of every example's responses, without a gradient.
    pub fn score(&self, packed: &Packed) -> Result<Vec<Vec<ResponseScore>>> {
        let h = self.normed(packed)?;
        let mut all = Vec::with_capacity(packed.examples.len());
        for group in self.groups(packed) {
            let examples = &packed.examples[group];
            let span = span(examples);
            let mut statistics = Vec::with_capacity(span.len());
            for rows in self.tiles(&span) {
                statistics.extend(self.tile(packed, &h, rows, None)?.statistics);
            }
            all.extend(examples.iter().map(|e| scores(e, &statistics, span.start)));
        }
        Ok(all)
    }

    /// One micro-batch of training: forward, then for each example `seeds` turns its scores into
    /// d loss / d log-prob of each packed response, and after these, where the loss reads them, of
    /// each [`shared`](ResponseScore::shared) sum; then backward. Adds to `gradients`.
    pub fn step(
        &self,
        packed: &Packed,
        mut seeds: impl FnMut(usize, &[ResponseScore]) -> Result<Vec<f64>>,
        gradients: &mut Params,
    ) -> Result<()> {
        let (x, activations) = self.forward(packed)?;
        let norm = self.final_norm();
        let rows = embedding::gather(&x, &activations.sources, x.dtype())?;
        let (h, saved) = norm.forward(self.own_weights(), &rows)?;
        // Where the head alone is trained, nothing reads the gradient of its input.
        let wanted = norm.trainable() || self.trained_below_head();
        let dh = || elementwise::zeros((rows.dim(0)?, self.arch.hidden_size), &rows);
        let mut dh = wanted.then(dh).transpose()?;
        for group in self.groups(packed) {
            let span = span(&packed.examples[group.clone()]);
            let tiles = self.tiles(&span);
            let mut statistics = Vec::with_capacity(span.len());
            let mut open = None;
            for rows in tiles.iter().cloned() {
                // One tile at a time is in memory.
                drop(open.take());
                let tile = self.tile(packed, &h, rows, Some(&activations))?;
                statistics.extend_from_slice(&tile.statistics);
                open = Some(tile);
            }
            let mut token_seeds = vec![0.0; span.len()];
            for example in group {
                let responses = &packed.examples[example];
                let scores = scores(responses, &statistics, span.start);
                let seeds = seeds(example, &scores)?;
                for (at, response) in responses.iter().enumerate() {
                    let tokens = &mut token_seeds[offset(&response.rows, span.start)];
                    tokens.fill(seeds[at]);
                    if let Some(more) = seeds.get(responses.len() + at) {
                        let shared = shared_tokens(response, responses).unwrap_or(0);
                        tokens[..shared].iter_mut().for_each(|seed| *seed += more);
                    }
                }
            }
            // The last tile is still there, so it goes first.
            for rows in tiles.into_iter().rev() {
                let mut tile = match open.take() {
                    Some(tile) => tile,
                    None => self.tile(packed, &h, rows, Some(&activations))?,
                };
                let seeds = &token_seeds[offset(&tile.rows, span.start)];
                let keys = tile.keys.take();
                let dropout = activations.dropout(&keys);
                self.tile_backward(&h, tile, dropout, seeds, gradients, dh.as_mut())?;
            }
        }
        let Some(dh) = dh else {
            return Ok(());
        };
        let mut drows = dh.zeros_like()?;
        norm.backward(self.own_weights(), &dh, &saved, gradients, &mut drows)?;
        if !self.trained_below_head() {
            return Ok(());
        }
        let mut dx = x.zeros_like()?;
        embedding::scatter_add(&drows, &activations.sources, &mut dx)?;
        drop((x, h, rows, saved, dh, drows));
        self.backward(dx, activations, gradients)
    }

    /// The logits of a batch's predictions, (predictions, vocabulary), all at once: for inspection.
    pub fn logits(&self, packed: &Packed) -> Result<Tensor> {
        self.head_logits(&self.normed(packed)?)
    }

    /// (n, hidden) after the final norm -> (n, vocabulary).
    fn head_logits(&self, h: &Tensor) -> Result<Tensor> {
        self.head_logits_of(self.own_weights(), h)
    }

    /// As [`Self::head_logits`], by these weights.
    pub(super) fn head_logits_of(&self, weights: Weights, h: &Tensor) -> Result<Tensor> {
        let mut logits = self.head().forward_of(weights, h, self.stream_dtype())?;
        token::transform(&mut logits, self.logit_transform())?;
        Ok(logits)
    }

    /// What becomes of the head's products.
    fn logit_transform(&self) -> LogitTransform {
        LogitTransform {
            scale: self.arch.multipliers.logits,
            softcap: self.arch.logit_softcap,
        }
    }

    fn normed(&self, packed: &Packed) -> Result<Tensor> {
        let rows = self.forward_with(self.own_weights(), packed, |_, _| Ok(()))?;
        let norm = self.final_norm();
        Ok(norm.forward(self.own_weights(), &rows)?.0)
    }

    /// The tile of these rows; in training with what its forward pass left.
    fn tile(
        &self,
        packed: &Packed,
        h: &Tensor,
        rows: Range<usize>,
        training: Option<&Activations>,
    ) -> Result<Tile> {
        let part = h.narrow(0, rows.start, rows.len())?;
        let keys = training.map(|activations| activations.head_keys(&rows));
        let keys = keys.transpose()?.flatten();
        let dropout = training.and_then(|activations| activations.dropout(&keys));
        let logits = self.head_logits_of(self.head_weights(dropout), &part)?;
        let labels = from_host(&packed.labels[rows.clone()], rows.len(), self.device())?;
        let statistics = token::statistics(&logits, &labels)?;
        Ok(Tile {
            rows,
            logits,
            labels,
            statistics,
            keys,
        })
    }

    fn head_weights<'a>(&'a self, dropout: Option<Dropout<'a>>) -> Weights<'a> {
        Weights {
            dropout,
            ..self.own_weights()
        }
    }

    /// Adds the head's weight gradient where it is trained, and that of the tile's hidden rows to theirs
    /// of `dh` where that is wanted.
    fn tile_backward(
        &self,
        h: &Tensor,
        tile: Tile,
        dropout: Option<Dropout>,
        seeds: &[f64],
        gradients: &mut Params,
        dh: Option<&mut Tensor>,
    ) -> Result<()> {
        let log_sum_exp: Vec<f64> = tile.statistics.iter().map(|s| s.log_sum_exp).collect();
        let rows = tile.rows;
        let part = |x: &Tensor| x.narrow(0, rows.start, rows.len());
        let (weights, head) = (self.head_weights(dropout), self.head());
        let (logits, labels, dtype) = (tile.logits, &tile.labels, self.dtype());
        let how = self.logit_transform();
        let dlogits = token::backward(logits, labels, &log_sum_exp, seeds, how, dtype)?;
        if head.trainable() {
            head.backward_parameters(weights, &dlogits, &part(h)?, gradients)?;
        }
        match dh {
            Some(dh) => head.backward_input_add(weights, &dlogits, Dst::view(dh, part)?),
            None => Ok(()),
        }
    }

    pub(super) fn head(&self) -> Linear {
        Linear::head(&self.arch, self.layout())
    }

    pub(super) fn final_norm(&self) -> NormLayer {
        NormLayer::new(self.layout(), self.arch.norm, &self.arch.names.final_norm)
    }

    /// Runs of examples whose rows fit one tile; a longer example is a run of its own.
    fn groups(&self, packed: &Packed) -> Vec<Range<usize>> {
        let lengths: Vec<usize> = packed
            .examples
            .iter()
            .map(|e| e.iter().map(|r| r.rows.len()).sum())
            .collect();
        crate::data::pack::micro_batches(&lengths, self.tile_rows)
    }

    fn tiles(&self, span: &Range<usize>) -> Vec<Range<usize>> {
        let rows = self.tile_rows;
        span.clone()
            .step_by(rows)
            .map(|start| start..(start + rows).min(span.end))
            .collect()
    }
}

/// The rows of a run of examples.
fn span(examples: &[Vec<PackedResponse>]) -> Range<usize> {
    let mut rows = examples.iter().flatten().map(|response| &response.rows);
    match rows.next() {
        Some(first) => first.start..rows.next_back().unwrap_or(first).end,
        None => 0..0,
    }
}

fn offset(rows: &Range<usize>, start: usize) -> Range<usize> {
    rows.start - start..rows.end - start
}

/// How many tokens both responses of the pair have, for one of the two.
fn shared_tokens(response: &PackedResponse, responses: &[PackedResponse]) -> Option<usize> {
    let length = |role: Role| Some(responses.iter().find(|r| r.role == role)?.rows.len());
    let shared = length(Role::Chosen)?.min(length(Role::Rejected)?);
    [Role::Chosen, Role::Rejected]
        .contains(&response.role)
        .then_some(shared)
}

fn scores(
    responses: &[PackedResponse],
    statistics: &[TokenStatistics],
    start: usize,
) -> Vec<ResponseScore> {
    let score = |response: &PackedResponse| {
        let tokens = &statistics[offset(&response.rows, start)];
        ResponseScore {
            index: response.index,
            role: response.role,
            log_prob: tokens.iter().map(|t| t.log_prob).sum(),
            tokens: tokens.len(),
            entropy: tokens.iter().map(|t| t.entropy).sum(),
            correct: tokens.iter().filter(|t| t.correct).count(),
            shared: shared_tokens(response, responses)
                .map(|shared| tokens[..shared].iter().map(|t| t.log_prob).sum()),
            confidence: tokens
                .iter()
                .map(|t| t.log_prob - t.log_collision)
                .sum::<f64>()
                / tokens.len() as f64,
        }
    };
    responses.iter().map(score).collect()
}
