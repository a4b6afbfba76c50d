//! `margins.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::names::MARGINS;
use super::record::read_optional;
use crate::error::Result;
use crate::io::number::{nan, or_nan};

/// The pairs with the extreme margins of one evaluation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Margins {
    /// The optimizer step of the evaluation.
    pub step: u64,
    /// The number of pairs evaluated.
    pub pairs: usize,
    /// The largest margins, largest first.
    pub largest: Vec<Pair>,
    /// The smallest margins, smallest first.
    pub smallest: Vec<Pair>,
}

/// A preference pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Its row in the evaluation data.
    #[serde(default)]
    pub row: usize,
    /// The reward of the chosen response minus that of the rejected one.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub margin: f64,
    /// The prompt.
    #[serde(default)]
    pub prompt: String,
    /// The chosen response.
    pub chosen: Side,
    /// The rejected response.
    pub rejected: Side,
}

/// One response of a pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The response, without the prompt.
    #[serde(default)]
    pub text: String,
    /// Its implicit reward.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub reward: f64,
    /// Its log-probability under the policy, in nats.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub log_prob: f64,
    /// Its log-probability under the reference, in nats.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub reference_log_prob: f64,
    /// Its number of tokens with a log-probability.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub tokens: f64,
}

impl Margins {
    /// Reads the margins of a run directory; `None` if there are none.
    ///
    /// # Errors
    /// If the file holds no margins.
    pub fn open(directory: &Path) -> Result<Option<Self>> {
        read_optional(&directory.join(MARGINS))
    }
}
