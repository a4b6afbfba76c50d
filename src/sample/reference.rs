//! The log-probs of drawn responses under a second model.
//!
//! *Why*: responses are known whole when they are scored, so the second model takes one packed pass over
//! many of them, not a step for each token.

use super::Drawn;
use crate::data::pack::{micro_batches, packed_tokens};
use crate::data::{Example, Prompt, Response};
use crate::error::{Error, Result};
use crate::loss::Role;
use crate::model::Decoder;

/// Tokens of prompts and responses that are scored at once.
pub(super) const SCORED_TOKENS: usize = 4096;

/// A second model, which scores what the first one draws.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// The model; its tokenizer is that of the one that draws.
    pub model: &'a Decoder,
    /// Its content hash.
    pub hash: &'a str,
}

impl Reference<'_> {
    /// What tells it from others in a file.
    pub(super) fn name(&self) -> String {
        format!("{:.16}", self.hash)
    }

    /// log r(y|x) of responses in their order, in nats; those to one prompt that follow each other share
    /// its computation.
    pub(super) fn score(&self, responses: &[(&Prompt, &Drawn)]) -> Result<Vec<f64>> {
        let same = |a: &(&Prompt, &Drawn), b: &(&Prompt, &Drawn)| a.0 == b.0;
        let examples = responses.chunk_by(same).enumerate().map(|(row, group)| {
            let response =
                |(_, drawn): &(&Prompt, &Drawn)| Response::new(Role::Sampled, drawn.ids.clone());
            Example {
                row,
                prompt: group[0].0.ids.clone(),
                responses: group.iter().map(response).collect(),
                preference: None,
            }
        });
        let examples: Vec<Example> = examples.collect();
        let roles = &[Role::Sampled];
        let class = |length| self.model.length_class(length);
        let tokens = examples.iter().map(|e| packed_tokens(e, roles, &class));
        let tokens: Vec<usize> = tokens.collect();
        let mut all = Vec::with_capacity(responses.len());
        for range in micro_batches(&tokens, SCORED_TOKENS) {
            let scores = self
                .model
                .score(&self.model.pack(&examples[range], roles))?;
            all.extend(scores.iter().flatten().map(|score| score.log_prob));
        }
        for ((prompt, _), log_prob) in responses.iter().zip(&all) {
            if !log_prob.is_finite() {
                return Err(Error::non_finite(format!(
                    "{}: a response has log-prob {log_prob} under the reference",
                    prompt.place
                )));
            }
        }
        Ok(all)
    }
}
