//! One row as a run sees it.
//!
//! *Why*: most of what goes wrong in fine-tuning is in the tokens: a template that was applied twice
//! or not at all, a missing end token, a cut. It shows when the tokens are shown.

use super::build::{Built, Draft};
use crate::data::example::Example;

/// A row with the texts that its tokens come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `file:line`.
    pub place: String,
    /// The tokens.
    pub example: Example,
    /// The prompt.
    pub prompt: Part,
    /// The responses, in the order of the example.
    pub responses: Vec<Part>,
}

/// The text of a prompt or response, and what happened to its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The text before any cut.
    pub text: String,
    /// Whether tokens were cut for length.
    pub cut: bool,
    /// Whether it shared a token with what stands in front of it, and was tokenised alone.
    pub merged: bool,
}

impl Inspection {
    pub(super) fn new(draft: &Draft, built: &Built) -> Self {
        let text = &draft.text;
        let answers = text.answers.iter().map(|answer| &answer.text);
        let samples = draft.samples.iter().map(|sample| &sample.response);
        let mismatched = draft.mismatched.iter().map(|answer| &answer.text);
        let part = |(index, text): (usize, &String)| Part {
            text: text.clone(),
            cut: built.cuts.responses.contains(&index),
            merged: built.merged[index],
        };
        Self {
            place: draft.place.to_string(),
            example: built.example.clone(),
            prompt: Part {
                text: text.prompt.clone(),
                cut: built.cuts.prompt,
                merged: false,
            },
            responses: answers
                .chain(samples)
                .chain(mismatched)
                .enumerate()
                .map(part)
                .collect(),
        }
    }
}
