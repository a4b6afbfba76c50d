//! The check of a run whose reference is its policy, before the first update.

use super::{Split, Stepper};
use crate::config::Dtype;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::loss::{Role, Scored};

/// The most that policy and reference may differ per token before the first update, in nats, when
/// they are the same model: rounding in batches of different make-up.
fn same_model(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-4,
        Dtype::Bf16 => 1e-2,
    }
}

impl Stepper<'_> {
    /// Where policy and reference are one model, every log-ratio is 0 and the loss is known. Checks
    /// both on these rows, in all their roles.
    pub fn check_same_model(&self, split: &Split, rows: &[usize]) -> Result<()> {
        let same_model = same_model(self.config.model.dtype);
        let examples = split.examples(rows)?;
        let scores = self.scores(split, rows, Role::ALL)?;
        let all = rows.iter().zip(&examples).zip(&scores);
        let scored = |((&row, example), scores): ((_, &Example), &Vec<_>)| {
            self.scored(split, row, example, scores)
        };
        let all: Vec<Scored> = all.map(scored).collect();
        let equal: Vec<Scored> = all.iter().map(Scored::at_reference).collect();
        let (prepared, known) = (self.loss.prepare(&all), self.loss.prepare(&equal));
        let tokens = all
            .iter()
            .flat_map(|s| s.responses.iter().map(|r| r.tokens));
        let longest = tokens.fold(0.0, f64::max);
        for (at, (scored, example)) in all.iter().zip(&examples).enumerate() {
            let loss = self.loss.evaluate(scored, &prepared, at);
            let expected = self.loss.evaluate(&equal[at], &known, at);
            // Twice the first-order effect leaves room for curvature and for the batch statistic. At a
            // kink the slope of either side may be the one that counts.
            let slopes = |grad: &[f64]| grad.iter().map(|slope| slope.abs()).sum::<f64>();
            let slopes = slopes(&loss.grad).max(slopes(&expected.grad));
            let loss = loss.value;
            let mut slack =
                1e-6 * (1.0 + expected.value.abs()) + 2.0 * slopes * same_model * longest;
            for response in &scored.responses {
                for (of, value) in [
                    ("policy", response.policy.value),
                    ("reference", response.reference),
                ] {
                    if !value.is_finite() {
                        return Err(at_step_0(
                            example,
                            &format!("the {of}'s log-prob is {value}"),
                        ));
                    }
                }
                let off = response.log_ratio().value.abs();
                let allowed = same_model * response.tokens;
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
            if !expected.value.is_finite() || !loss.is_finite() {
                return Err(at_step_0(
                    example,
                    &format!(
                        "the loss {} is {loss}, though policy and reference agree: a key of it, such as beta, overflows",
                        self.loss.name()
                    ),
                ));
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
}

/// What is not finite before the first update.
fn at_step_0(example: &Example, what: &str) -> Error {
    Error::non_finite(format!(
        "step 0: row {}: {what}; no update was made",
        example.row
    ))
}

fn disagreement(example: &Example, what: &str) -> Error {
    Error::input(format!("before the first update {what}, though they are the same model"))
        .at(format!("row {}", example.row))
        .hint("the reference log-probs are of other tokens, another dtype or another program: score again")
}
