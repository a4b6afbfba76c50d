//! `non_finite.jsonl`.

use serde::{Deserialize, Serialize};

use crate::io::number::{by_name, nan};

/// A step that met NaN or infinity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NonFiniteStep {
    /// Its number, from 1; of an evaluation the number of steps made before it.
    #[serde(default)]
    pub step: u64,
    /// What was not finite.
    #[serde(default)]
    pub what: String,
    /// The rows of the batch, as the loss saw them.
    #[serde(default)]
    pub rows: Vec<NonFiniteRow>,
    /// The parameters whose gradient, or else whose update, is not finite.
    #[serde(default)]
    pub parameters: Vec<String>,
}

/// A row of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NonFiniteRow {
    /// Its number in the data.
    #[serde(default)]
    pub row: usize,
    /// Its loss.
    #[serde(default = "nan", with = "by_name")]
    pub loss: f64,
    /// Its responses.
    #[serde(default)]
    pub responses: Vec<NonFiniteResponse>,
}

/// A response of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NonFiniteResponse {
    /// Its role, e.g. `chosen`.
    #[serde(default)]
    pub role: String,
    /// Its number of tokens with a log-probability.
    #[serde(default)]
    pub tokens: f64,
    /// Its log-probability under the policy, in nats.
    #[serde(default = "nan", with = "by_name")]
    pub log_prob: f64,
    /// Its log-probability under the reference, in nats.
    #[serde(default = "nan", with = "by_name")]
    pub reference: f64,
}
