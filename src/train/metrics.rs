//! What a step reports: averages over examples, responses and tokens.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::loss::{Role, Scored, WeightedLoss};
use crate::model::head::ResponseScore;
use crate::run_dir::Record;

/// The order of the figures in a record; others come after, as they came.
const ORDER: &[&str] = &[
    "loss",
    "learning_rate",
    "grad_norm",
    "num_tokens",
    "entropy",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "logps/margins",
    "logps/accuracies",
    "log_ratios/chosen",
    "log_ratios/rejected",
    "kl",
    "mean_token_accuracy",
];

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

    /// Adds what one example reports, with the loss's own `figures` last. Rewards and log-probs are averaged over the responses of
    /// their role, margins and accuracies over pairs, `entropy` over the tokens of chosen and
    /// rejected responses, `mean_token_accuracy` over those of chosen ones. `log_ratios/*` is how
    /// far log-probs moved from the reference.
    pub fn add_example(
        &mut self,
        loss: &WeightedLoss,
        value: f64,
        scored: &Scored,
        figures: Vec<(Cow<'static, str>, f64)>,
        scores: &[ResponseScore],
    ) {
        self.add("loss", value);
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
            }
        }
        if let Some((w, l)) = scored.pair() {
            if let (Some(w), Some(l)) = (loss.reward(w), loss.reward(l)) {
                self.add("rewards/margins", w - l);
                self.add("rewards/accuracies", f64::from(u8::from(w > l)));
            }
            self.add("logps/margins", w.policy.value - l.policy.value);
        }
        for (name, figure) in figures {
            self.add(name, figure);
        }
    }

    /// Appends the means to a record, their names after `prefix`.
    pub fn write(&self, prefix: &str, record: &mut Record) {
        let known = ORDER
            .iter()
            .filter_map(|name| self.sums.iter().find(|(n, ..)| n == name));
        let others = self
            .sums
            .iter()
            .filter(|(name, ..)| !ORDER.contains(&&**name));
        for (name, sum, weight) in known.chain(others) {
            // Of the two zeros only one is written.
            record.insert(format!("{prefix}{name}"), (sum / weight + 0.0).into());
        }
    }
}
