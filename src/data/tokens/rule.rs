//! The rule by which a prompt and a response become token ids.
//!
//! Hides the boundary between the two, and what goes in front and behind.
//!
//! *Why*: the prompt's ids are the same for all its responses and for sampling, so a prompt is
//! computed once, and log-probs of drawn and of given responses are of the same thing.

use super::Tokenizer;
use crate::data::config::{AddBos, Tokenize, TokenizeConfig};
use crate::error::Result;
use std::ops::Range;

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
    pub fn new(config: &TokenizeConfig, tokenizer: &'a Tokenizer) -> Self {
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

    /// As [`response`](Self::response), of a text in which others speak between `turns`, the bytes
    /// that are the assistant's. The second value says of each id whether it is the assistant's: it
    /// lies within a turn, and is no white space that the template writes behind the end token. An id
    /// that lies across the bound of a turn counts as a merge.
    pub fn response_in_turns(
        &self,
        prompt: &str,
        prompt_ids: &[u32],
        text: &str,
        turns: &[Range<usize>],
    ) -> Result<(Continuation, Vec<bool>)> {
        let mut continuation = self.response(prompt, prompt_ids, text)?;
        let ids = &continuation.ids;
        let alone = continuation.merged || self.tokenize == Tokenize::Separate;
        let (offsets, start) = match alone {
            true => (self.tokenizer.offsets(text)?, 0),
            false => (
                self.tokenizer.offsets(&format!("{prompt}{text}"))?,
                prompt.len(),
            ),
        };
        let own = &offsets[offsets.len() - ids.len()..];
        let mut scored = vec![false; ids.len()];
        for turn in turns {
            let (from, to) = (turn.start + start, turn.end + start);
            let inside = |bytes: &Range<usize>| from <= bytes.start && bytes.end <= to;
            let overlaps = |bytes: &Range<usize>| bytes.start < to && from < bytes.end;
            let across = |bytes: &&Range<usize>| overlaps(bytes) && !inside(bytes);
            continuation.merged |= own.iter().any(|bytes| across(&bytes));
            let first = own.iter().position(inside).unwrap_or(own.len());
            let length = own[first..]
                .iter()
                .take_while(|bytes| inside(bytes))
                .count();
            let length = self.up_to_end(&ids[first..first + length])?;
            scored[first..first + length].fill(true);
        }
        Ok((continuation, scored))
    }

    /// Makes `ids` end in an end token: appends one, unless they already end in one or have only
    /// white space behind it, which is dropped. A chat template writes a line end there; no model
    /// that stops at its end token can.
    pub fn finish(&self, ids: &mut Vec<u32>) -> Result<()> {
        ids.truncate(self.up_to_end(ids)?);
        if !self.is_finished(ids) {
            ids.push(self.tokenizer.eos());
        }
        Ok(())
    }

    // The length without the white space that may follow the last end token.
    fn up_to_end(&self, ids: &[u32]) -> Result<usize> {
        let is_end = |id: &u32| self.tokenizer.ends().contains(id);
        let Some(last) = ids.iter().rposition(is_end) else {
            return Ok(ids.len());
        };
        let behind = self.tokenizer.decode(&ids[last + 1..], false)?;
        Ok(match behind.trim().is_empty() {
            true => last + 1,
            false => ids.len(),
        })
    }

    /// Whether `ids` end in an end token.
    pub fn is_finished(&self, ids: &[u32]) -> bool {
        ids.last()
            .is_some_and(|id| self.tokenizer.ends().contains(id))
    }
}
