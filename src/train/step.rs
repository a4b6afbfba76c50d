//! The training step: scored responses in, weight gradients out.

use std::ops::Range;

use super::metrics::Averages;
use super::{Split, trained};
use crate::config::Config;
use crate::data::Example;
use crate::data::pack::{Packed, micro_batches, packed_tokens};
use crate::error::{Error, Result};
use crate::kernels::profile::{Part, part};
use crate::loss::{Context, Role, Scored, Sum};
use crate::model::Decoder;
use crate::model::head::ResponseScore;
use crate::model::parameters::Buffer;

/// The most that policy and reference may differ per token before the first update, in nats, when
/// they are the same model: f32 rounding in batches of different make-up.
const SAME_MODEL: f64 = 1e-4;

/// Computes gradients and evaluations of one model under one loss.
pub(super) struct Stepper<'a> {
    loss: &'a Sum,
    model: &'a Decoder,
    roles: Vec<Role>,
    config: &'a Config,
}

impl<'a> Stepper<'a> {
    pub fn new(config: &'a Config, model: &'a Decoder) -> Self {
        let loss = &config.loss;
        let roles = trained(&loss.needs());
        Self {
            loss,
            model,
            roles,
            config,
        }
    }

    /// The gradient of the mean loss over the rows `batch`, in place of what `gradients` held.
    /// Returns the tokens computed with gradient.
    pub fn gradients(
        &self,
        split: &Split,
        batch: &[usize],
        averages: &mut Averages,
        gradients: &Buffer,
    ) -> Result<usize> {
        gradients.clear()?;
        let contexts = self.contexts(split, batch)?;
        let mut tokens = 0;
        for part in self.micro_batches(split, batch, &self.roles) {
            let (rows, contexts) = (&batch[part.clone()], &contexts[part]);
            let packed = self.pack(split, rows, &self.roles);
            let seeds = |i: usize, scores: &[ResponseScore]| {
                let (scored, context) = (self.scored(split, rows[i], scores), &contexts[i]);
                let loss = self.loss.evaluate(&scored, context);
                let example = &split.dataset.examples[rows[i]];
                check_finite(example, &scored, loss.value)?;
                averages.add_example(self.loss, loss.value, &scored, context, scores);
                Ok(loss.grad.iter().map(|g| g / batch.len() as f64).collect())
            };
            self.model.step(&packed, seeds, gradients)?;
            tokens += packed.ids.len();
        }
        Ok(tokens)
    }

    /// The averages over a whole split, without gradients.
    pub fn evaluate(&self, split: &Split) -> Result<Averages> {
        let mut averages = Averages::default();
        let rows: Vec<usize> = (0..split.dataset.examples.len()).collect();
        // A statistic that costs nothing is that of the whole split; one of log-probs is a batch's,
        // as in training.
        let whole = match self.loss.needs().batch.is_empty() {
            true => Some(self.contexts(split, &rows)?),
            false => None,
        };
        for batch in rows.chunks(self.config.batch.batch_size) {
            let contexts = match &whole {
                Some(contexts) => contexts[batch[0]..batch[0] + batch.len()].to_vec(),
                None => self.contexts(split, batch)?,
            };
            for part in self.micro_batches(split, batch, &self.roles) {
                let (rows, contexts) = (&batch[part.clone()], &contexts[part]);
                let scores = self.model.score(&self.pack(split, rows, &self.roles))?;
                for ((&row, scores), context) in rows.iter().zip(scores).zip(contexts) {
                    let scored = self.scored(split, row, &scores);
                    let value = self.loss.evaluate(&scored, context).value;
                    check_finite(&split.dataset.examples[row], &scored, value)?;
                    averages.add_example(self.loss, value, &scored, context, &scores);
                }
            }
        }
        Ok(averages)
    }

    /// What each row is evaluated with, from a score-only pass over the roles whose log-probs the
    /// loss reads of the whole batch.
    fn contexts(&self, split: &Split, batch: &[usize]) -> Result<Vec<Vec<Context>>> {
        let examples = batch.iter().map(|&row| &split.dataset.examples[row]);
        let mut all: Vec<Scored> = examples.map(unscored).collect();
        let roles = self.loss.needs().batch;
        if !roles.is_empty() {
            for part in self.micro_batches(split, batch, roles) {
                let rows = &batch[part.clone()];
                let scores = self.model.score(&self.pack(split, rows, roles))?;
                for ((example, &row), scores) in all[part].iter_mut().zip(rows).zip(scores) {
                    for score in scores {
                        let response = &mut example.responses[score.index];
                        response.policy.value = score.log_prob;
                        response.reference = split.reference[row][score.index].log_prob;
                    }
                }
            }
        }
        Ok(self.loss.contexts(&all))
    }

    fn pack(&self, split: &Split, rows: &[usize], roles: &[Role]) -> Packed {
        let _profile = part(Part::Data);
        Packed::new(rows.iter().map(|&row| &split.dataset.examples[row]), roles)
    }

    fn micro_batches(&self, split: &Split, batch: &[usize], roles: &[Role]) -> Vec<Range<usize>> {
        let _profile = part(Part::Data);
        if let Some(parts) = self.config.batch.gradient_accumulation_steps {
            let size = batch.len().div_ceil(parts);
            let starts = (0..batch.len()).step_by(size);
            return starts
                .map(|start| start..(start + size).min(batch.len()))
                .collect();
        }
        let tokens = |&row: &usize| packed_tokens(&split.dataset.examples[row], roles);
        let lengths: Vec<usize> = batch.iter().map(tokens).collect();
        micro_batches(
            &lengths,
            self.config.batch.micro_batch_tokens.unwrap_or(usize::MAX),
        )
    }

    /// Where policy and reference are one model, every log-ratio is 0 and the loss is known. Checks
    /// both on these rows, in all their roles.
    pub fn check_same_model(&self, split: &Split, rows: &[usize]) -> Result<()> {
        let mut all = Vec::with_capacity(rows.len());
        for part in self.micro_batches(split, rows, Role::ALL) {
            let rows = &rows[part];
            let scores = self.model.score(&self.pack(split, rows, Role::ALL))?;
            all.extend(
                rows.iter()
                    .zip(scores)
                    .map(|(&row, s)| self.scored(split, row, &s)),
            );
        }
        let equal: Vec<Scored> = all.iter().map(Scored::at_reference).collect();
        let (contexts, known) = (self.loss.contexts(&all), self.loss.contexts(&equal));
        let tokens = all
            .iter()
            .flat_map(|s| s.responses.iter().map(|r| r.tokens));
        let longest = tokens.fold(0.0, f64::max);
        for (at, (scored, &row)) in all.iter().zip(rows).enumerate() {
            let example = &split.dataset.examples[row];
            let loss = self.loss.evaluate(scored, &contexts[at]);
            let expected = self.loss.evaluate(&equal[at], &known[at]);
            // Twice the first-order effect leaves room for curvature and for the batch statistic. At a
            // kink the slope of either side may be the one that counts.
            let slopes = |grad: &[f64]| grad.iter().map(|slope| slope.abs()).sum::<f64>();
            let slopes = slopes(&loss.grad).max(slopes(&expected.grad));
            let loss = loss.value;
            let mut slack =
                1e-6 * (1.0 + expected.value.abs()) + 2.0 * slopes * SAME_MODEL * longest;
            for response in &scored.responses {
                let off = response.log_ratio().value.abs();
                let allowed = SAME_MODEL * response.tokens;
                if off > allowed || off.is_nan() {
                    return Err(disagreement(
                        example,
                        &format!(
                            "a log-prob of {} tokens is {} under the policy and {} under the reference",
                            response.tokens, response.policy.value, response.reference
                        ),
                    ));
                }
                slack += off * off;
            }
            let off = (loss - expected.value).abs();
            if off > slack || off.is_nan() {
                return Err(disagreement(
                    example,
                    &format!("the loss is {loss}, not {}", expected.value),
                ));
            }
        }
        Ok(())
    }

    /// The responses that were packed, with the reference's log-probs.
    fn scored(&self, split: &Split, row: usize, scores: &[ResponseScore]) -> Scored {
        let (example, reference) = (&split.dataset.examples[row], &split.reference[row]);
        let response = |s: &ResponseScore| {
            (
                s.role,
                s.log_prob,
                reference[s.index].log_prob,
                s.tokens as f64,
            )
        };
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
            let reference = reference[s.index].shared;
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

fn disagreement(example: &Example, what: &str) -> Error {
    Error::input(format!("before the first update {what}, though they are the same model"))
        .at(format!("row {}", example.row))
        .hint("the reference log-probs are of other tokens, another dtype or another program: score again")
}

fn check_finite(example: &Example, scored: &Scored, loss: f64) -> Result<()> {
    let log_probs: Vec<f64> = scored.responses.iter().map(|r| r.policy.value).collect();
    if loss.is_finite() && log_probs.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    Err(Error::NonFinite(format!(
        "row {}: the loss is {loss} at log-probs {log_probs:?}; no update was made",
        example.row
    )))
}
