//! Scores of many responses in little memory.
//!
//! Hides that an example's scores lie side by side in flat lists: 12 bytes for a response, 20 with
//! the sum of shared tokens, and 8 for the example.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Score;
use crate::data::Dataset;

/// The scores of every response of every example, in the order of the examples.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Column {
    // Behind each example's last response.
    ends: Vec<usize>,
    log_probs: Vec<f64>,
    tokens: Vec<u32>,
    // NaN where a response has none; empty while none has.
    shared: Vec<f64>,
}

impl Column {
    /// Appends the scores of an example.
    pub fn push(&mut self, scores: impl IntoIterator<Item = Score>) {
        for score in scores {
            if score.shared.is_some() && self.shared.is_empty() {
                self.shared.resize(self.log_probs.len(), f64::NAN);
            }
            self.log_probs.push(score.log_prob);
            self.tokens.push(score.tokens as u32);
            if score.shared.is_some() || !self.shared.is_empty() {
                self.shared.push(score.shared.unwrap_or(f64::NAN));
            }
        }
        self.ends.push(self.log_probs.len());
    }

    /// SHA-256, in hex, of all numbers, to the last bit.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        for number in self.log_probs.iter().chain(&self.shared) {
            hasher.update(number.to_le_bytes());
        }
        for tokens in &self.tokens {
            hasher.update(tokens.to_le_bytes());
        }
        format!("{:x}", hasher.finalize())
    }

    /// Appends another column.
    pub fn append(&mut self, other: &Self) {
        (0..other.len()).for_each(|example| self.push(other.of(example)));
    }

    /// The column of all examples of a dataset from that of its distinct ones.
    #[must_use]
    pub fn repeated(self, dataset: &Dataset) -> Self {
        let Some(originals) = dataset.originals() else {
            return self;
        };
        let mut places = HashMap::new();
        let mut column = Self::default();
        for original in originals {
            let next = places.len();
            let place = *places.entry(original).or_insert(next);
            column.push(self.of(place));
        }
        column
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has no example.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The responses of all examples.
    pub fn responses(&self) -> usize {
        self.log_probs.len()
    }

    /// The scored tokens of all responses.
    pub fn tokens(&self) -> usize {
        self.tokens.iter().map(|&tokens| tokens as usize).sum()
    }

    /// The score of an example's response.
    pub fn score(&self, example: usize, response: usize) -> Score {
        self.at(self.range(example).start + response)
    }

    /// The scores of an example.
    pub fn of(&self, example: usize) -> impl ExactSizeIterator<Item = Score> + Clone + '_ {
        self.range(example).map(|at| self.at(at))
    }

    /// Replaces the log-probs of an example whose responses are still the same.
    pub fn set(&mut self, example: usize, scores: impl IntoIterator<Item = Score>) {
        for (at, score) in self.range(example).zip(scores) {
            self.log_probs[at] = score.log_prob;
            if let Some(shared) = self.shared.get_mut(at) {
                *shared = score.shared.unwrap_or(f64::NAN);
            }
        }
    }

    /// The places of an example's responses among all.
    pub(super) fn range(&self, example: usize) -> Range<usize> {
        let start = match example {
            0 => 0,
            _ => self.ends[example - 1],
        };
        start..self.ends[example]
    }

    fn at(&self, at: usize) -> Score {
        let shared = self.shared.get(at).copied();
        Score {
            log_prob: self.log_probs[at],
            tokens: self.tokens[at] as usize,
            shared: shared.filter(|shared| !shared.is_nan()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(log_prob: f64, shared: Option<f64>) -> Score {
        Score {
            log_prob,
            tokens: (-log_prob) as usize,
            shared,
        }
    }

    #[test]
    fn a_column_gives_back_what_it_was_given() {
        let rows = [
            vec![score(-1.0, None)],
            vec![],
            vec![score(-2.0, Some(-0.5)), score(-3.0, None)],
            vec![score(-4.0, None), score(-5.0, Some(-1.5))],
        ];
        let mut column = Column::default();
        rows.iter().for_each(|row| column.push(row.iter().copied()));
        let all = |column: &Column| -> Vec<Vec<Score>> {
            (0..column.len()).map(|e| column.of(e).collect()).collect()
        };
        assert_eq!(all(&column), rows);
        assert_eq!(column.score(3, 1), rows[3][1]);
        assert_eq!((column.len(), column.responses()), (4, 5));
        assert_eq!(column.tokens(), 15);
        column.append(&column.clone());
        assert_eq!(all(&column), [rows.clone(), rows.clone()].concat());
        let other = [score(-7.0, Some(-7.0)), score(-8.0, None)];
        column.set(2, other);
        assert_eq!(column.score(2, 0).log_prob, -7.0);
        assert_eq!(column.score(2, 0).shared, Some(-7.0));
        assert_eq!(column.of(3).collect::<Vec<_>>(), rows[3]);
    }
}
