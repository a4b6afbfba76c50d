//! Examples: a prompt with its responses, as tokens.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::loss::Role;

/// A response as tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// What it is to its prompt.
    pub role: Role,
    /// Token ids, the end-of-sequence token included where the response is complete.
    pub ids: Vec<u32>,
    /// The ranges of `ids` that are context and not scored, in order: turns of others between the
    /// assistant's. Empty where the response is one turn.
    pub context: Vec<Range<usize>>,
    /// The score that its row gives it, where the loss reads scores.
    pub score: Option<f64>,
}

impl Response {
    /// A response of one turn.
    pub fn new(role: Role, ids: Vec<u32>) -> Self {
        Self {
            role,
            ids,
            context: Vec::new(),
            score: None,
        }
    }

    /// Whether a token of it is part of |y|, as far as the response itself knows.
    pub fn is_scored(&self, token: usize) -> bool {
        !self.context.iter().any(|range| range.contains(&token))
    }

    /// Keeps the first `length` tokens.
    pub(super) fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
        for range in &mut self.context {
            range.end = range.end.min(length);
        }
        self.context.retain(|range| !range.is_empty());
    }
}

/// One prompt with its responses, as the model sees them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The row's number from 0 in its files one after the other, invalid rows and those outside a
    /// slice counted.
    pub row: usize,
    /// Token ids, the begin-of-sequence token included where the tokenizer puts one.
    pub prompt: Vec<u32>,
    /// Chosen first, then rejected, sampled, mismatched; not every role need be there.
    pub responses: Vec<Response>,
    /// p(chosen > rejected) where the row carries a soft label.
    pub preference: Option<f64>,
}

impl Example {
    /// The number of tokens of `response` that have a log-prob, |y|.
    pub fn scored_tokens(&self, response: &Response) -> usize {
        (0..response.ids.len())
            .filter(|&token| self.is_scored(response, token))
            .count()
    }

    /// Whether a token of `response` has a log-prob: it is not context. With an empty prompt nothing
    /// predicts the first one.
    pub fn is_scored(&self, response: &Response, token: usize) -> bool {
        response.is_scored(token) && !(self.prompt.is_empty() && token == 0)
    }

    /// By how much the chosen response's score is the higher one, where both have scores.
    pub fn score_gap(&self) -> Option<f64> {
        let score = |role: Role| self.responses.iter().find(|r| r.role == role)?.score;
        Some(score(Role::Chosen)? - score(Role::Rejected)?)
    }

    /// SHA-256, in hex, of the prompt's and the responses' token ids and roles. Two rows with the
    /// same hash have the same log-probs under one model.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        self.feed(&mut hasher);
        format!("{:x}", hasher.finalize())
    }

    // Lengths go in front, so that no two examples feed the same bytes.
    pub(super) fn feed(&self, hasher: &mut Sha256) {
        let mut sequence = |tag: u8, ids: &[u32]| {
            hasher.update([tag]);
            hasher.update((ids.len() as u64).to_le_bytes());
            for id in ids {
                hasher.update(id.to_le_bytes());
            }
        };
        sequence(0, &self.prompt);
        for response in &self.responses {
            let tag = match response.role {
                Role::Chosen => 1,
                Role::Rejected => 2,
                Role::Sampled => 3,
                Role::Mismatched => 4,
            };
            sequence(tag, &response.ids);
            if !response.context.is_empty() {
                let bounds = response.context.iter().flat_map(|r| [r.start, r.end]);
                let bounds: Vec<u32> = bounds.map(|bound| bound as u32).collect();
                sequence(5, &bounds);
            }
        }
    }
}
