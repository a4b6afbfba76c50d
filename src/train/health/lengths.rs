//! Lengths of answers: what labels and rewards prefer, and what the policy writes.

use serde::{Deserialize, Serialize};

use crate::run_dir::Generation;

/// Of the pairs whose answers differ in length and in reward, in how many the longer one is preferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::train) struct LengthPreference {
    /// Pairs whose answers differ in length and in reward.
    pub pairs: usize,
    /// Where the longer answer is the chosen one.
    longer_chosen: usize,
    /// Where it has the higher reward.
    longer_rewarded: usize,
}

impl LengthPreference {
    /// Counts a pair: the tokens of its answers, and the chosen reward minus the rejected one.
    pub fn add(&mut self, chosen: f64, rejected: f64, margin: f64) {
        if chosen == rejected || margin == 0.0 {
            return;
        }
        let longer = chosen > rejected;
        self.pairs += 1;
        self.longer_chosen += usize::from(longer);
        self.longer_rewarded += usize::from(longer == (margin > 0.0));
    }

    /// The share of pairs whose labels prefer the longer answer.
    pub fn by_label(&self) -> f64 {
        self.longer_chosen as f64 / self.pairs as f64
    }

    /// The share of pairs whose rewards do.
    pub fn by_reward(&self) -> f64 {
        self.longer_rewarded as f64 / self.pairs as f64
    }
}

/// The answers of one evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::train) struct Generated {
    /// How many.
    pub answers: usize,
    /// Those that were cut at the limit.
    pub cut: usize,
    tokens: usize,
}

impl Generated {
    /// Tokens per answer.
    pub fn mean(&self) -> f64 {
        self.tokens as f64 / self.answers as f64
    }

    /// Those of the first and of the last evaluation in lines of `generations.jsonl`; `None` where there
    /// are not two.
    pub fn first_and_last(lines: &[Generation]) -> Option<(Self, Self)> {
        let (first, last) = (lines.first()?.step, lines.last()?.step);
        let of = |step: u64| {
            let mut all = Self::default();
            for line in lines.iter().filter(|line| line.step == step) {
                all.answers += 1;
                all.tokens += line.tokens;
                all.cut += usize::from(line.is_cut());
            }
            all
        };
        (first < last).then(|| (of(first), of(last)))
    }
}
