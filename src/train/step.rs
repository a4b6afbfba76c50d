//! The training step: scored responses in, weight gradients out.

mod same_model;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Split;
use super::eval_samples::Extremes;
use super::lanes::Lanes;
use super::metrics::Averages;
use super::non_finite::LossInputs;
use crate::config::Config;
use crate::data::Example;
use crate::data::pack::micro_batches;
use crate::error::{Error, Result};
use crate::kernels::profile::{Part, part};
use crate::loss::{Prepared, Role, Scored, WeightedLoss};
use crate::model::Decoder;
use crate::model::head::ResponseScore;
use crate::model::parameters::Params;
use crate::ranks::share;

/// Computes gradients and evaluations of one model under one loss.
pub(super) struct Stepper<'a> {
    loss: &'a WeightedLoss,
    model: &'a Decoder,
    roles: Vec<Role>,
    config: &'a Config,
    lanes: &'a Lanes,
}

/// What a rank has computed of a batch with gradient.
#[derive(Default, Serialize, Deserialize)]
struct Computed {
    tokens: usize,
    /// Scores of rows by their place in the batch.
    scores: Vec<(usize, Vec<ResponseScore>)>,
    /// What ended a lane before its last row: a value that is not finite.
    ended: Option<String>,
}

impl<'a> Stepper<'a> {
    pub fn new(config: &'a Config, model: &'a Decoder, lanes: &'a Lanes) -> Self {
        let loss = &config.loss;
        let roles = loss.needs().trained();
        Self {
            loss,
            model,
            roles,
            config,
            lanes,
        }
    }

    /// Adds the gradient of the mean loss over the rows `batch` to `gradients`, which the caller cleared;
    /// `inputs` becomes what the loss saw of them. Returns the tokens computed with gradient, on all ranks.
    pub fn gradients(
        &self,
        split: &Split,
        batch: &[usize],
        averages: &mut Averages,
        inputs: &mut LossInputs,
        gradients: &mut Params,
    ) -> Result<usize> {
        inputs.clear();
        let prepared = self.loss.prepare(&self.batch_inputs(split, batch)?);
        let mut own = Computed::default();
        if self.lanes.are_several() {
            let mut sum = self.lanes.sum(gradients)?;
            for (slot, lane) in self.own(split, batch, &self.roles)?.iter().enumerate() {
                if slot > 0 {
                    gradients.clear()?;
                }
                self.lane(split, batch, lane, &prepared, &mut own, gradients)?;
                sum.add("the gradients", gradients)?;
            }
        } else {
            for lane in self.own(split, batch, &self.roles)? {
                self.lane(split, batch, &lane, &prepared, &mut own, gradients)?;
            }
        }
        let all = share(self.lanes.ranks(), "the log-probs of a step", own)?;
        let tokens = all.iter().map(|computed| computed.tokens).sum();
        let ended = all.iter().find_map(|computed| computed.ended.clone());
        if ended.is_some() && self.lanes.are_several() {
            // What ranks hold of it differs.
            gradients.clear()?;
        }
        let mut scores = vec![None; batch.len()];
        for (place, of_row) in all.into_iter().flat_map(|computed| computed.scores) {
            scores[place] = Some(of_row);
        }
        // Rows are looked at in the order of the batch, whoever computed them: the first that is not finite
        // is known, for a lane that ended has all of its rows before that one.
        for (at, (&row, scores)) in batch.iter().zip(scores).enumerate() {
            let Some(scores) = scores else {
                break;
            };
            let example = split.example(row)?;
            let scored = self.scored(split, row, &example, &scores);
            let loss = self.loss.evaluate(&scored, &prepared, at).value;
            inputs.add(example.row, loss, &scored);
            check_finite(&example, &scored, loss)?;
            let figures = self.loss.diagnostics(&scored, &prepared, at);
            averages.add_example(self.loss, loss, &scored, figures, &scores);
        }
        match ended {
            None => Ok(tokens),
            Some(what) => Err(Error::non_finite(what)),
        }
    }

    /// Adds the gradient of the rows at some places of a batch. A value that is not finite ends it, and is
    /// no error yet: other ranks wait for this one.
    fn lane(
        &self,
        split: &Split,
        batch: &[usize],
        places: &[usize],
        prepared: &[Prepared],
        computed: &mut Computed,
        gradients: &mut Params,
    ) -> Result<()> {
        let rows: Vec<usize> = places.iter().map(|&place| batch[place]).collect();
        for part in self.micro_batches(split, &rows, &self.roles)? {
            let (rows, places) = (&rows[part.clone()], &places[part]);
            let examples = split.examples(rows)?;
            let packed = self.model.pack(&examples, &self.roles);
            let seeds = |i: usize, scores: &[ResponseScore]| {
                let (example, at) = (&examples[i], places[i]);
                computed.scores.push((at, scores.to_vec()));
                let scored = self.scored(split, rows[i], example, scores);
                let loss = self.loss.evaluate(&scored, prepared, at);
                check_finite(example, &scored, loss.value)?;
                Ok(loss.grad.iter().map(|g| g / batch.len() as f64).collect())
            };
            match self.model.step(&packed, seeds, gradients) {
                Err(error) if error.is_non_finite() => {
                    computed.ended.get_or_insert(error.to_string());
                    return Ok(());
                }
                made => made?,
            }
            computed.tokens += packed.ids.len();
        }
        Ok(())
    }

    /// The averages over a whole split, without gradients; `inputs` becomes what the loss saw of the
    /// last rows, and `extremes` sees every pair.
    pub fn evaluate(
        &self,
        split: &Split,
        inputs: &mut LossInputs,
        extremes: &mut Extremes,
    ) -> Result<Averages> {
        let mut averages = Averages::default();
        let rows: Vec<usize> = (0..split.len()).collect();
        // What a loss reads of a batch is that of the whole split, so that the figures do not depend on
        // how many rows are computed at a time.
        let mut all = Vec::with_capacity(rows.len());
        for batch in rows.chunks(self.config.batch.batch_size) {
            all.extend(self.batch_inputs(split, batch)?);
        }
        let prepared = self.loss.prepare(&all);
        for batch in rows.chunks(self.config.batch.batch_size) {
            inputs.clear();
            let scores = self.scores(split, batch, &self.roles)?;
            for (&row, scores) in batch.iter().zip(&scores) {
                let example = split.example(row)?;
                let scored = self.scored(split, row, &example, scores);
                let value = self.loss.evaluate(&scored, &prepared, row).value;
                inputs.add(example.row, value, &scored);
                check_finite(&example, &scored, value)?;
                extremes.look(row, &scored, self.loss);
                let figures = self.loss.diagnostics(&scored, &prepared, row);
                averages.add_example(self.loss, value, &scored, figures, scores);
            }
        }
        Ok(averages)
    }

    /// What the statistics of a batch are made of, from a score-only pass over the roles whose log-probs
    /// the loss reads of the whole batch.
    fn batch_inputs(&self, split: &Split, batch: &[usize]) -> Result<Vec<Scored>> {
        let reading = part(Part::Data);
        let examples = batch.iter().map(|&row| split.example(row));
        let mut all: Vec<Scored> = examples
            .map(|example| Ok(unscored(&example?)))
            .collect::<Result<_>>()?;
        drop(reading);
        let roles = self.loss.needs().batch;
        if !roles.is_empty() {
            let scores = self.scores(split, batch, roles)?;
            for ((example, &row), scores) in all.iter_mut().zip(batch).zip(scores) {
                for score in scores {
                    let response = &mut example.responses[score.index];
                    response.policy.value = score.log_prob;
                    response.reference = split.score(row, score.index).log_prob;
                }
            }
        }
        Ok(all)
    }

    /// The scores of rows in these roles, without gradients: each rank computes those of its lanes.
    fn scores(
        &self,
        split: &Split,
        batch: &[usize],
        roles: &[Role],
    ) -> Result<Vec<Vec<ResponseScore>>> {
        let mut own = Vec::with_capacity(batch.len());
        for places in self.own(split, batch, roles)? {
            let rows: Vec<usize> = places.iter().map(|&place| batch[place]).collect();
            for part in self.micro_batches(split, &rows, roles)? {
                let examples = split.examples(&rows[part.clone()])?;
                let scores = self.model.score(&self.model.pack(&examples, roles))?;
                own.extend(places[part].iter().copied().zip(scores));
            }
        }
        let mut all: Vec<_> = share(self.lanes.ranks(), "log-probs", own)?.concat();
        all.sort_by_key(|(place, _)| *place);
        Ok(all.into_iter().map(|(_, scores)| scores).collect())
    }

    /// The places in a batch that this rank's lanes have.
    fn own(&self, split: &Split, batch: &[usize], roles: &[Role]) -> Result<Vec<Vec<usize>>> {
        self.lanes.own(batch.len(), || {
            let class = |length| self.model.length_class(length);
            let cost = |&row: &usize| -> Result<u64> {
                Ok(self.model.cost(split.tokens(row, roles, &class)?))
            };
            batch.iter().map(cost).collect()
        })
    }

    fn micro_batches(
        &self,
        split: &Split,
        rows: &[usize],
        roles: &[Role],
    ) -> Result<Vec<Range<usize>>> {
        let _profile = part(Part::Data);
        if let Some(parts) = self.config.batch.gradient_accumulation_steps {
            let size = rows.len().div_ceil(parts).max(1);
            let starts = (0..rows.len()).step_by(size);
            return Ok(starts
                .map(|start| start..(start + size).min(rows.len()))
                .collect());
        }
        let class = |length| self.model.length_class(length);
        let lengths = rows.iter().map(|&row| split.tokens(row, roles, &class));
        let lengths: Vec<usize> = lengths.collect::<Result<_>>()?;
        Ok(micro_batches(
            &lengths,
            self.config.batch.micro_batch_tokens.unwrap_or(usize::MAX),
        ))
    }

    /// The responses that were packed, with the reference's log-probs.
    fn scored(
        &self,
        split: &Split,
        row: usize,
        example: &Example,
        scores: &[ResponseScore],
    ) -> Scored {
        let reference = |s: &ResponseScore| split.score(row, s.index);
        let response =
            |s: &ResponseScore| (s.role, s.log_prob, reference(s).log_prob, s.tokens as f64);
        let responses: Vec<_> = scores.iter().map(response).collect();
        let confidences: Vec<f64> = scores.iter().map(|s| s.confidence).collect();
        let scored = Scored::new(&responses, example.preference)
            .with_confidence(&confidences)
            .with_score_gap(example.score_gap());
        if !self.loss.needs().shared {
            return scored;
        }
        // Where a response is of no pair nothing reads these.
        let shared = |s: &ResponseScore| {
            let reference = reference(s).shared;
            (s.shared.unwrap_or(f64::NAN), reference.unwrap_or(f64::NAN))
        };
        scored.with_shared(&scores.iter().map(shared).collect::<Vec<_>>())
    }
}

/// The example's roles and lengths.
fn unscored(example: &Example) -> Scored {
    let responses: Vec<_> = example
        .responses
        .iter()
        .map(|r| (r.role, f64::NAN, f64::NAN, example.scored_tokens(r) as f64))
        .collect();
    Scored::new(&responses, example.preference)
}

fn check_finite(example: &Example, scored: &Scored, loss: f64) -> Result<()> {
    let log_probs: Vec<f64> = scored.responses.iter().map(|r| r.policy.value).collect();
    if loss.is_finite() && log_probs.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    Err(Error::non_finite(format!(
        "row {}: the loss is {loss} at log-probs {log_probs:?}; no update was made",
        example.row
    )))
}
