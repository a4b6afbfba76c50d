//! How often each row of a file is in a dataset.
//!
//! Hides which rows a fraction stands for.
//!
//! *Why*: a mixture is data, not chance: the rows of a run are a pure function of the seed, the place of
//! the file in its list and the number of its rows. The count is exact, so that what a config asks for is
//! what is trained on, and a file of ten rows at 0.3 has three of them, not one or six.

use super::read::Record;
use crate::data::batches::below;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// The largest weight. Each copy of a row is an entry of the index in memory.
const LARGEST: f64 = 1000.0;

/// Changing the algorithm means changing this text, and with it every mixture.
const VERSION: &[u8; 16] = b"expo mixture v1 ";

/// How often a file's rows are in the dataset: a number in (0, 1000].
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Weight(f64);

/// It is never NaN.
impl Eq for Weight {}

impl Default for Weight {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for Weight {
    type Error = String;

    fn try_from(weight: f64) -> Result<Self, String> {
        match weight > 0.0 && weight <= LARGEST {
            true => Ok(Self(weight)),
            false => Err(format!("weight must be in (0, {LARGEST}] (got {weight})")),
        }
    }
}

impl From<Weight> for f64 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl Weight {
    /// Whether every row is there once.
    pub fn is_one(self) -> bool {
        self.0 == 1.0
    }

    /// Whether the number of rows decides which of them are there once more.
    pub(super) fn has_fraction(self) -> bool {
        self.0.fract() != 0.0
    }
}

/// A record, and how often it is in the dataset.
#[derive(Debug)]
pub struct Weighted {
    /// Its number from 0 in the files one after the other.
    pub number: usize,
    /// The place in the list of the name that it was found under.
    pub part: usize,
    /// 0 where the weight leaves it out.
    pub times: usize,
    /// What stands there.
    pub record: Record,
}

/// Says of one row of a file after the other how often it is there: floor(weight) times, and once more
/// for round((weight - floor(weight)) * rows) of them.
///
/// Those are chosen by selection sampling (Knuth, The Art of Computer Programming, 3.4.2, algorithm S):
/// each row is taken with the probability of those still wanted among those still to come, so that every
/// choice of so many rows is equally likely. The random numbers are ChaCha8's, keyed by seed and part.
pub(super) struct Choice {
    whole: usize,
    wanted: u64,
    left: u64,
    random: ChaCha8Rng,
}

impl Choice {
    /// `rows` matters only to a weight that has a fraction.
    pub fn new(Weight(weight): Weight, rows: usize, seed: u64, part: usize) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(part as u64).to_le_bytes());
        key[16..].copy_from_slice(VERSION);
        Self {
            whole: weight.floor() as usize,
            wanted: (weight.fract() * rows as f64).round() as u64,
            left: rows as u64,
            random: ChaCha8Rng::from_seed(key),
        }
    }

    /// How often the next row is there.
    pub fn next(&mut self) -> usize {
        // A file that grew since it was counted has no more of them.
        if self.wanted == 0 || self.left == 0 {
            return self.whole;
        }
        let taken = below(&mut self.random, self.left) < self.wanted;
        self.left -= 1;
        self.wanted -= u64::from(taken);
        self.whole + usize::from(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(weight: f64, rows: usize, seed: u64, part: usize) -> Vec<usize> {
        let mut choice = Choice::new(Weight(weight), rows, seed, part);
        (0..rows).map(|_| choice.next()).collect()
    }

    #[test]
    fn each_row_is_there_as_often_as_its_weight_says_to_the_row() {
        for (weight, rows, copies) in [
            (1.0, 7, 7),
            (3.0, 7, 21),
            (0.5, 7, 4),
            (0.3, 10, 3),
            (2.5, 10, 25),
            (0.01, 10, 0),
            (1000.0, 2, 2000),
            (0.9999, 10, 10),
        ] {
            let times = times(weight, rows, 0, 0);
            assert_eq!(times.iter().sum::<usize>(), copies, "{weight} of {rows}");
            let whole = weight.floor() as usize;
            assert!(times.iter().all(|&n| n == whole || n == whole + 1));
        }
    }

    #[test]
    fn every_choice_of_rows_is_equally_likely() {
        // Two of four rows: six choices, 6,000 seeds. Chi-square with 5 degrees of freedom: 20.5 at 0.1%.
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            *counts.entry(times(0.5, 4, seed, 0)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        let squares = counts
            .values()
            .map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0);
        assert!(squares.sum::<f64>() < 20.5, "{counts:?}");
    }

    #[test]
    fn a_choice_is_another_one_for_another_seed_or_part_and_the_same_again() {
        let one = times(0.5, 100, 1, 0);
        assert_eq!(times(0.5, 100, 1, 0), one);
        assert_ne!(times(0.5, 100, 2, 0), one);
        assert_ne!(times(0.5, 100, 1, 1), one);
        // The algorithm is what next year's runs must find: rows 0 to 9 at 0.5 of seed 0.
        assert_eq!(times(0.5, 10, 0, 0).iter().sum::<usize>(), 5);
    }

    #[test]
    fn a_weight_is_more_than_nothing_and_not_endless() {
        for weight in [0.0, -1.0, 1000.5, f64::NAN, f64::INFINITY] {
            let message = Weight::try_from(weight).unwrap_err();
            assert!(
                message.starts_with("weight must be in (0, 1000] (got "),
                "{message}"
            );
        }
    }
}
