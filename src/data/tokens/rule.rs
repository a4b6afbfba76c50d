//! The rule by which a prompt and a response become token ids.
//!
//! Hides the boundary between the two, and what goes in front and behind.
//!
//! *Why*: the prompt's ids are the same for all its responses and for sampling, so a prompt is
//! computed once, and log-probs of drawn and of given responses are of the same thing.

use super::Tokenizer;
use crate::data::config::{AddBos, Tokenize, TokenizeConfig};
use crate::error::Result;
use serde::{Deserialize, Serialize};
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

/// What the assistant says at a time, in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The bytes.
    pub bytes: Range<usize>,
    /// Where its content has been said; the end token comes behind it.
    pub said: usize,
}

/// A response as ids that follow its prompt's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The ids, without an end token but those of the text itself.
    pub ids: Vec<u32>,
    /// Whether prompt and response share a token in their joint tokenisation, so that the response
    /// was tokenised alone.
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

    /// As [`response`](Self::response), of a text in which others may speak between the learned `turns`. Each
    /// ends with the first end token behind what it says: what a template writes behind that, no model that
    /// stops there can. The response ends with the last of them. The second value says of each id whether
    /// it is learned. An id that lies across the bound of a turn counts as a merge.
    pub fn response_in_turns(
        &self,
        prompt: &str,
        prompt_ids: &[u32],
        text: &str,
        turns: &[Turn],
    ) -> Result<(Continuation, Vec<bool>)> {
        let mut continuation = self.response(prompt, prompt_ids, text)?;
        let ids = &mut continuation.ids;
        if let [turn] = turns
            && turn.bytes == (0..text.len())
            && !self.quotes_end(&text[..turn.said])
        {
            // The places of the ids need not be known.
            let end = ids.iter().position(|id| self.is_end(*id));
            ids.truncate(end.map_or(ids.len(), |end| end + 1));
            let learned = vec![true; ids.len()];
            return Ok((continuation, learned));
        }
        let alone = continuation.merged || self.tokenize == Tokenize::Separate;
        let own = self.places(prompt, text, ids.len(), alone)?;
        let mut learned = vec![false; ids.len()];
        let mut last = 0;
        for Turn { bytes, said } in turns {
            let inside = |id: &Range<usize>| bytes.start <= id.start && id.end <= bytes.end;
            let overlaps = |id: &Range<usize>| id.start < bytes.end && bytes.start < id.end;
            let across = |id: &&Range<usize>| overlaps(id) && !inside(id);
            continuation.merged |= own.iter().any(|id| across(&id));
            let first = own.iter().position(inside).unwrap_or(own.len());
            let length = own[first..].iter().take_while(|id| inside(id)).count();
            let turn = first..first + length;
            let end = turn
                .clone()
                .find(|id| own[*id].start >= *said && self.is_end(ids[*id]));
            let end = end.map_or(turn.end, |end| end + 1);
            learned[turn.start..end].fill(true);
            last = last.max(end);
        }
        ids.truncate(last);
        learned.truncate(last);
        Ok((continuation, learned))
    }

    /// The bytes of `text` behind `prompt` that the last `count` ids stand for.
    fn places(
        &self,
        prompt: &str,
        text: &str,
        count: usize,
        alone: bool,
    ) -> Result<Vec<Range<usize>>> {
        let (places, start) = match alone {
            true => (self.tokenizer.offsets(text)?, 0),
            false => (
                self.tokenizer.offsets(&format!("{prompt}{text}"))?,
                prompt.len(),
            ),
        };
        let own = places[places.len() - count..].iter();
        let shift = |at: usize| at.saturating_sub(start);
        Ok(own.map(|id| shift(id.start)..shift(id.end)).collect())
    }

    /// The special token, none of the end tokens, that `text` has right behind what is said in it.
    pub fn other_end(&self, text: &str, said: usize) -> Result<Option<u32>> {
        let behind = text[said..].trim_start();
        let ids = self.tokenizer.encode(behind)?;
        let special = |id: &&u32| self.tokenizer.is_special(**id) && !self.is_end(**id);
        Ok(ids.first().filter(special).copied())
    }

    fn is_end(&self, id: u32) -> bool {
        self.tokenizer.ends().contains(&id)
    }

    /// Whether a text has an end token's text in it.
    fn quotes_end(&self, text: &str) -> bool {
        let mut ends = self.tokenizer.end_texts().iter();
        ends.any(|end| text.contains(end.as_str()))
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
        let Some(last) = ids.iter().rposition(|id| self.is_end(*id)) else {
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
        ids.last().is_some_and(|id| self.is_end(*id))
    }
}
