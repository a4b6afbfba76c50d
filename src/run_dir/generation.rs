//! `generations.jsonl`.

use serde::{Deserialize, Serialize};

use crate::io::number::{nan, or_nan};

/// A response that was sampled at an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// The optimizer step of the evaluation.
    #[serde(default)]
    pub step: u64,
    /// The row of the evaluation data that the prompt is from.
    #[serde(default)]
    pub row: usize,
    /// The prompt.
    pub prompt: String,
    /// The response, without the prompt.
    #[serde(default)]
    pub response: String,
    /// Its log-probability under the policy, in nats.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub log_prob: f64,
    /// Its number of tokens.
    #[serde(default)]
    pub tokens: usize,
    /// Why it ends.
    #[serde(default)]
    pub finish_reason: FinishReason,
}

impl Generation {
    /// Whether it was cut at the length limit.
    pub fn is_cut(&self) -> bool {
        self.finish_reason == FinishReason::Length
    }
}

/// Why a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// At an end token.
    #[default]
    Stop,
    /// At the length limit.
    Length,
}
