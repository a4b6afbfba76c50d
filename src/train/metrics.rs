//! What a step reports: averages over examples, responses and tokens.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::loss::{Loss, Role, Scored, WeightedLoss};
use crate::model::head::ResponseScore;
use crate::run_dir::{ACCURACY, Metric, Record, STRICT_ACCURACY};

/// The negative log-likelihood per chosen token, from which the perplexity is computed.
const NLL: &str = "nll_per_token";

/// Weighted means by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(String, u64, u64)>", into = "Vec<(String, u64, u64)>")]
pub struct Averages {
    /// Name, weighted sum, weight.
    sums: Vec<(Cow<'static, str>, f64, f64)>,
}

/// The bits of each number: JSON has no name for all of them.
impl From<Averages> for Vec<(String, u64, u64)> {
    fn from(averages: Averages) -> Self {
        let sums = averages.sums.into_iter();
        sums.map(|(name, sum, weight)| (name.into_owned(), sum.to_bits(), weight.to_bits()))
            .collect()
    }
}

impl From<Vec<(String, u64, u64)>> for Averages {
    fn from(sums: Vec<(String, u64, u64)>) -> Self {
        let number = f64::from_bits;
        let sums = sums.into_iter();
        Self {
            sums: sums
                .map(|(name, sum, weight)| (name.into(), number(sum), number(weight)))
                .collect(),
        }
    }
}

impl Averages {
    /// Adds a figure with weight 1.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, value: f64) {
        self.add_weighted(name, value, 1.0);
    }

    fn add_weighted(&mut self, name: impl Into<Cow<'static, str>>, sum: f64, weight: f64) {
        let name = name.into();
        match self.sums.iter_mut().find(|(known, ..)| *known == name) {
            Some(entry) => {
                entry.1 += sum;
                entry.2 += weight;
            }
            None => self.sums.push((name, sum, weight)),
        }
    }

    /// Adds what one example reports, with the loss's own `figures` last. Rewards and log-probs are
    /// averaged over the responses of their role, margins and accuracies over pairs, `entropy` over the
    /// tokens of chosen and rejected responses, `mean_token_accuracy` and `nll_per_token` over those of
    /// chosen ones.
    pub fn add_example(
        &mut self,
        loss: &WeightedLoss,
        value: f64,
        scored: &Scored,
        figures: Vec<(Cow<'static, str>, f64)>,
        scores: &[ResponseScore],
    ) {
        self.add("loss", value);
        let fits_tokens = loss.terms().iter().any(|term| matches!(term, Loss::Sft(_)));
        for (response, score) in scored.responses.iter().zip(scores) {
            let (reward, log_prob, log_ratio) = match response.role {
                Role::Chosen => ("rewards/chosen", "logps/chosen", "log_ratios/chosen"),
                Role::Rejected => ("rewards/rejected", "logps/rejected", "log_ratios/rejected"),
                Role::Sampled | Role::Mismatched => continue,
            };
            if let Some(value) = loss.reward(response) {
                self.add(reward, value);
            }
            self.add(log_prob, response.policy.value);
            if !response.reference.is_nan() {
                self.add(log_ratio, response.log_ratio().value);
            }
            self.add_weighted("entropy", score.entropy, score.tokens as f64);
            if response.role == Role::Chosen {
                self.add_weighted(
                    "mean_token_accuracy",
                    score.correct as f64,
                    score.tokens as f64,
                );
                if fits_tokens {
                    let nll = -response.policy.value;
                    self.add_weighted(NLL, nll, score.tokens as f64);
                }
            }
        }
        if let Some((w, l)) = scored.pair() {
            if let (Some(w), Some(l)) = (loss.reward(w), loss.reward(l)) {
                self.add("rewards/margins", w - l);
                self.add(STRICT_ACCURACY, f64::from(u8::from(w > l)));
                let half = f64::from(u8::from(w >= l)) + f64::from(u8::from(w > l));
                self.add(ACCURACY, half / 2.0);
            }
            self.add("logps/margins", w.policy.value - l.policy.value);
        }
        for (name, figure) in figures {
            self.add(name, figure);
        }
    }

    /// The weight of a mean, 0 where there is none: of a figure of pairs, how many there were.
    pub fn weight(&self, name: &str) -> f64 {
        let mut all = self.sums.iter();
        let found = all.find(|(known, ..)| known == name);
        found.map_or(0.0, |(_, _, weight)| *weight)
    }

    /// Appends the means to a record in the order of [`Metric::ALL`], their names after `prefix`; others
    /// come after, as they came.
    pub fn write(&self, prefix: &str, record: &mut Record) {
        let mut write = |name: &str, value: f64| {
            // Of the two zeros only one is written.
            record.insert(format!("{prefix}{name}"), (value + 0.0).into());
        };
        for Metric { name, .. } in Metric::ALL {
            if let Some((_, sum, weight)) = self.sums.iter().find(|(known, ..)| known == name) {
                write(name, sum / weight);
                if *name == NLL {
                    write("perplexity", (sum / weight).exp());
                }
            }
        }
        let is_known = |name: &str| Metric::ALL.iter().any(|metric| metric.name == name);
        for (name, sum, weight) in self.sums.iter().filter(|(name, ..)| !is_known(name)) {
            write(name, sum / weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The record of these pairs of log-probs, each of 4 tokens, beside a reference that gives -8.
    fn record(loss: &str, pairs: &[(f64, f64)]) -> Record {
        let loss = WeightedLoss::from(Loss::default_of(loss).unwrap());
        let mut averages = Averages::default();
        for &(chosen, rejected) in pairs {
            let of = [(Role::Chosen, chosen), (Role::Rejected, rejected)];
            let scored = Scored::new(
                &of.map(|(role, log_prob)| (role, log_prob, -8.0, 4.0)),
                None,
            );
            let scores = of.map(|(role, log_prob)| ResponseScore {
                index: 0,
                role,
                log_prob,
                tokens: 4,
                entropy: 1.0,
                correct: 1,
                shared: None,
                confidence: f64::NAN,
            });
            averages.add_example(&loss, 0.5, &scored, Vec::new(), &scores);
        }
        let mut record = Record::new();
        averages.write("eval_", &mut record);
        record
    }

    #[test]
    fn a_tie_is_wrong_in_the_strict_accuracy_and_half_in_the_other() {
        let record = record(
            "dpo",
            &[(-7.0, -9.0), (-8.0, -8.0), (-6.0, -6.0), (-9.0, -7.0)],
        );
        assert_eq!(record["eval_rewards/accuracies"], 0.25);
        assert_eq!(record["eval_rewards/accuracies_ties_half"], 0.5);
    }

    #[test]
    fn sft_reports_the_mean_per_token_and_the_perplexity() {
        let record = record("sft", &[(-7.0, -9.0), (-9.0, -9.0)]);
        assert_eq!(record["eval_nll_per_token"], 2.0);
        assert_eq!(record["eval_perplexity"], 2f64.exp());
        assert!(record.get("eval_rewards/chosen").is_none());
    }

    #[test]
    fn a_record_has_the_order_of_the_list_and_no_negative_zero() {
        let mut averages = Averages::default();
        for name in ["own", "clamped", "kl", "loss"] {
            averages.add(name, -0.0);
        }
        let mut record = Record::new();
        averages.write("", &mut record);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, r#"{"loss":0.0,"kl":0.0,"clamped":0.0,"own":0.0}"#);
    }
}
