//! The rule by which a prompt and a response become token ids.
//!
//! Hides the boundary between the two, and what goes in front and behind.
//!
//! *Why*: the prompt's ids are the same for all its responses and for sampling, so a prompt is
//! computed once, and log-probs of drawn and of given responses are of the same thing.

use super::Tokenizer;
use super::config::{AddBos, DataConfig, Tokenize};
use crate::error::Result;

/// How texts become ids. Training, scoring and sampling use the same.
#[derive(Clone, Copy)]
pub struct TokenRule<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Whether a response is tokenised together with its prompt.
    pub tokenize: Tokenize,
    /// Whether begin tokens go in front of the prompt.
    pub add_bos: AddBos,
}

/// A response as ids that follow its prompt's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The ids, without an end token but those of the text itself.
    pub ids: Vec<u32>,
    /// Whether prompt and response share a token in their joint tokenisation, so that the response
    /// was tokenised by itself.
    pub merged: bool,
}

impl<'a> TokenRule<'a> {
    /// The rule that a configuration asks for.
    pub fn new(config: &DataConfig, tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            tokenize: config.tokenize,
            add_bos: config.add_bos,
        }
    }

    /// The ids of a prompt, the begin tokens in front, once.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.tokenizer.encode(text)?;
        let begin = match self.add_bos {
            AddBos::Auto => self.tokenizer.begin(),
            AddBos::Never => &[],
        };
        // A chat template may have written them already.
        if ids.starts_with(begin) {
            return Ok(ids);
        }
        Ok([begin, &ids].concat())
    }

    /// The ids of `text` after `prompt`, whose ids are `prompt_ids`.
    pub fn response(&self, prompt: &str, prompt_ids: &[u32], text: &str) -> Result<Continuation> {
        let mut merged = false;
        if self.tokenize == Tokenize::Joint {
            let both = self.prompt(&format!("{prompt}{text}"))?;
            if let Some(ids) = both.strip_prefix(prompt_ids) {
                return Ok(Continuation {
                    ids: ids.to_vec(),
                    merged,
                });
            }
            merged = true;
        }
        Ok(Continuation {
            ids: self.tokenizer.encode(text)?,
            merged,
        })
    }

    /// Appends the end token, unless `ids` already end in one.
    pub fn finish(&self, ids: &mut Vec<u32>) {
        if !self.is_finished(ids) {
            ids.push(self.tokenizer.eos());
        }
    }

    /// Whether `ids` end in an end token.
    pub fn is_finished(&self, ids: &[u32]) -> bool {
        ids.last()
            .is_some_and(|id| self.tokenizer.ends().contains(id))
    }
}
