//! KL(pi || r) on the policy's own answers.
//!
//! An answer y that is drawn from the policy, at temperature 1 and without a filter, estimates
//!
//! ```text
//! KL(pi || r) = E_{y ~ pi} [log pi(y|x) - log r(y|x)]
//! ```
//!
//! without bias. One that is cut at the limit counts as far as it goes: the estimate is then that of
//! sequences of at most so many tokens.
//!
//! *Why*: it is the one distance that every loss has, with a reference or without, on samples or
//! without. So runs with different losses can be compared by it.

use super::Answers;
use crate::error::Result;
use crate::model::Decoder;
use crate::run_dir::{Record, SAMPLED_KL};
use crate::score::score;

/// The estimate, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::train) struct SampledKl {
    /// The mean over answers.
    mean: f64,
    /// Its standard error; NaN of one answer.
    error: f64,
    /// The mean over tokens.
    per_token: f64,
    /// How many answers there are.
    answers: usize,
    /// The share of them that was cut at the limit.
    cut: f64,
}

impl SampledKl {
    /// That of answers which the policy has drawn.
    ///
    /// # Errors
    /// If a log-prob is not finite.
    pub fn of(
        answers: &Answers,
        policy: &Decoder,
        reference: &Decoder,
        micro_batch_tokens: usize,
    ) -> Result<Option<Self>> {
        // Both are scored alike, so that equal weights give exactly 0.
        let scored = |model| score(model, &answers.examples, micro_batch_tokens);
        let (policy, reference) = (scored(policy)?, scored(reference)?);
        let ratios: Vec<f64> = (0..answers.examples.len())
            .flat_map(|at| policy.of(at).zip(reference.of(at)))
            .map(|(policy, reference)| policy.log_prob - reference.log_prob)
            .collect();
        let cut = answers.lines.iter().filter(|line| line.is_cut()).count();
        let tokens = answers.lines.iter().map(|line| line.tokens).sum();
        Ok(Self::new(&ratios, tokens, cut))
    }

    /// Of log pi - log r of each answer, their tokens in all, and how many were cut.
    fn new(ratios: &[f64], tokens: usize, cut: usize) -> Option<Self> {
        let count = ratios.len() as f64;
        let mean = ratios.iter().sum::<f64>() / count;
        let squares: f64 = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum();
        (!ratios.is_empty()).then(|| Self {
            mean,
            error: (squares / (count - 1.0) / count).sqrt(),
            per_token: mean * count / tokens as f64,
            answers: ratios.len(),
            cut: cut as f64 / count,
        })
    }

    /// Appends it to the record of an evaluation.
    pub fn write(&self, record: &mut Record) {
        let figures = [
            (SAMPLED_KL, self.mean),
            ("sampled_kl_error", self.error),
            ("sampled_kl_per_token", self.per_token),
            ("sampled_kl_cut", self.cut),
        ];
        for (name, figure) in figures {
            if figure.is_finite() {
                // Of the two zeros only one is written.
                record.insert(format!("eval_{name}"), (figure + 0.0).into());
            }
        }
        record.insert("eval_sampled_kl_answers".into(), self.answers.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_its_error_and_the_share_that_was_cut() {
        // The sum of squares is 8, so the sample variance 8/3, of the mean of 4 answers 8/3/4.
        let kl = SampledKl::new(&[1.0, 3.0, 3.0, 3.0 + 2.0], 40, 1).unwrap();
        assert_eq!((kl.mean, kl.per_token, kl.cut), (3.0, 0.3, 0.25));
        assert!((kl.error - (8f64 / 3.0 / 4.0).sqrt()).abs() < 1e-15);
        let mut record = Record::new();
        kl.write(&mut record);
        assert_eq!(record["eval_sampled_kl"], 3.0);
        assert_eq!(record["eval_sampled_kl_answers"], 4);
    }

    #[test]
    fn one_answer_has_no_error_and_none_no_estimate() {
        let mut record = Record::new();
        SampledKl::new(&[-0.0], 3, 0).unwrap().write(&mut record);
        assert!(record.get("eval_sampled_kl_error").is_none());
        assert_eq!(
            serde_json::to_string(&record["eval_sampled_kl"]).unwrap(),
            "0.0"
        );
        assert_eq!(SampledKl::new(&[], 0, 0), None);
    }
}
