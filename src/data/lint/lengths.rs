//! How long prompts and answers are, and what the length of an answer says about it.
//!
//! *Why*: a policy that learns from pairs whose longer answer wins learns to write long answers, whatever else
//! it learns (Singhal et al. 2023, "A Long Way to Go").

use crate::data::dataset::Dataset;
use crate::data::rows::Spread;
use crate::data::rows::report::Lengths;
use crate::loss::Role;
use serde::Serialize;

/// Lengths of one kind: how many there are, their mean, median, 95th percentile and maximum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct LengthSummary {
    /// How many.
    pub count: usize,
    /// The mean.
    pub mean: f64,
    /// Median, 95th percentile and maximum.
    #[serde(flatten)]
    pub spread: Spread,
}

/// The lengths of the two answers of pairs, beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct LengthBias {
    /// Pairs.
    pub pairs: usize,
    /// Those whose chosen answer is the longer one.
    pub chosen_longer: usize,
    /// Those whose two answers are equally long.
    pub equal: usize,
    /// The mean of length of chosen - length of rejected.
    pub mean_difference: f64,
    /// The standard error of that mean: the sample's standard deviation / sqrt(pairs). 0 of one pair.
    pub standard_error: f64,
}

impl LengthBias {
    /// Pairs that the rule "the longer answer is the chosen one" gets right; a tie counts one half.
    pub fn right(&self) -> f64 {
        self.chosen_longer as f64 + self.equal as f64 / 2.0
    }

    /// The share of [`right`](Self::right) pairs; 1/2 where there are none.
    pub fn accuracy(&self) -> f64 {
        match self.pairs {
            0 => 0.5,
            pairs => self.right() / pairs as f64,
        }
    }

    /// Whether length tells more than it should: the rule, or its opposite, is right in more than 60% of
    /// at least 100 pairs.
    pub fn is_strong(&self) -> bool {
        self.pairs >= 100 && (self.accuracy() - 0.5).abs() > 0.1
    }
}

/// As in [`Statistics`](super::Statistics), in tokens after any cut; `None` where no example is a pair.
pub fn token_bias(dataset: &Dataset) -> Option<LengthBias> {
    let mut pairs = Pairs::default();
    for example in 0..dataset.len() {
        let prompt = dataset.tokens(example, &[]);
        let [chosen, rejected] =
            [Role::Chosen, Role::Rejected].map(|role| dataset.tokens(example, &[role]) - prompt);
        if chosen > 0 && rejected > 0 {
            pairs.add(chosen, rejected);
        }
    }
    Some(pairs.finish()).filter(|bias| bias.pairs > 0)
}

/// Lengths that are being counted.
#[derive(Default)]
pub(super) struct Summary {
    lengths: Lengths,
    count: usize,
    sum: usize,
}

impl Summary {
    pub fn add(&mut self, length: usize) {
        self.lengths.add(length);
        self.count += 1;
        self.sum += length;
    }

    pub fn finish(&self) -> LengthSummary {
        LengthSummary {
            count: self.count,
            mean: self.sum as f64 / self.count.max(1) as f64,
            spread: self.lengths.spread(),
        }
    }
}

/// Pairs that are being counted. The sums are whole numbers, so that their order does not matter.
#[derive(Default)]
pub(super) struct Pairs {
    pairs: usize,
    chosen_longer: usize,
    equal: usize,
    sum: i128,
    squares: u128,
}

impl Pairs {
    pub fn add(&mut self, chosen: usize, rejected: usize) {
        self.pairs += 1;
        self.chosen_longer += usize::from(chosen > rejected);
        self.equal += usize::from(chosen == rejected);
        self.sum += chosen as i128 - rejected as i128;
        self.squares += (chosen.abs_diff(rejected) as u128).pow(2);
    }

    pub fn finish(&self) -> LengthBias {
        let n = self.pairs.max(1) as f64;
        let mean = self.sum as f64 / n;
        let variance = (self.squares as f64 - mean * self.sum as f64) / (n - 1.0).max(1.0);
        LengthBias {
            pairs: self.pairs,
            chosen_longer: self.chosen_longer,
            equal: self.equal,
            mean_difference: mean,
            standard_error: (variance.max(0.0) / n).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_is_what_is_counted_by_hand() {
        let mut pairs = Pairs::default();
        for (chosen, rejected) in [(5, 3), (7, 7), (2, 6), (10, 1)] {
            pairs.add(chosen, rejected);
        }
        let bias = pairs.finish();
        // Differences 2, 0, -4, 9: mean 7/4, squares 101, variance (101 - 49/4) / 3 = 355/12.
        assert_eq!((bias.pairs, bias.chosen_longer, bias.equal), (4, 2, 1));
        assert_eq!(bias.mean_difference, 1.75);
        assert!((bias.standard_error - (355.0_f64 / 48.0).sqrt()).abs() < 1e-12);
        assert_eq!((bias.right(), bias.accuracy()), (2.5, 0.625));
        assert!(!bias.is_strong());
        assert_eq!(Pairs::default().finish().accuracy(), 0.5);
    }

    #[test]
    fn a_bias_is_strong_beyond_60_percent_of_100_pairs() {
        let of = |longer: usize, all: usize| {
            let mut pairs = Pairs::default();
            (0..all).for_each(|pair| pairs.add(usize::from(pair < longer) * 2, 1));
            pairs.finish().is_strong()
        };
        assert!(of(61, 100) && of(39, 100) && !of(60, 100) && !of(40, 100) && !of(99, 99));
    }

    #[test]
    fn a_summary_has_mean_and_nearest_ranks() {
        let mut summary = Summary::default();
        assert_eq!(summary.finish(), LengthSummary::default());
        (1..=20).for_each(|length| summary.add(length));
        let LengthSummary {
            count,
            mean,
            spread,
        } = summary.finish();
        assert_eq!((count, mean), (20, 10.5));
        assert_eq!((spread.median, spread.p95, spread.max), (10, 19, 20));
    }
}
