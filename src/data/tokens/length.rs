//! The length limit of an example.
//!
//! Hides what is cut, from where, and in which order.
//!
//! *Why*: the decision is made once per example, by its longest response, so that the prompt stays
//! the same for all: with different prompts the margin of a pair would compare different things. A
//! prompt with samples is cut as it was when they were drawn.

use super::Tokenizer;
use crate::data::config::{LengthConfig, RowConfig};
use crate::data::example::Example;
use crate::data::format::TruncationMode;
use crate::loss::Role;

/// What was cut of an example.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::data) struct Cuts {
    pub prompt: bool,
    /// The places of the responses that were cut.
    pub responses: Vec<usize>,
}

pub(in crate::data) fn cut(
    example: &mut Example,
    config: &RowConfig,
    tokenizer: &Tokenizer,
    is_chat: bool,
) -> Cuts {
    let mut cuts = Cuts::default();
    let LengthConfig {
        max_length: limit,
        max_prompt_length,
        truncation_mode,
        official_truncation,
    } = config.length;
    let longest = example.responses.iter().map(|r| r.ids.len()).max();
    let longest = longest.unwrap_or(0);
    let fits = example.prompt.len() + longest <= limit;
    // Who draws a response does not know its length, so the prompt that it was drawn after had to
    // leave room for any.
    let drawn = example.responses.iter().any(|r| r.role == Role::Sampled);
    if fits && !drawn {
        return cuts;
    }
    if example.prompt.len() > max_prompt_length {
        cuts.prompt = true;
        let mode = config.format.truncation(truncation_mode, is_chat);
        let begin = tokenizer.begin();
        cut_prompt(&mut example.prompt, max_prompt_length, mode, begin);
    }
    if example.prompt.len() + longest <= limit {
        return cuts;
    }
    let room = if official_truncation {
        limit - max_prompt_length
    } else {
        limit - example.prompt.len()
    };
    for (index, response) in example.responses.iter_mut().enumerate() {
        if response.ids.len() > room {
            response.truncate(room);
            cuts.responses.push(index);
        }
    }
    cuts
}

/// Cuts a prompt to `keep` tokens, of which the first are those of `begin` if they were so before.
pub(in crate::data) fn cut_prompt(
    prompt: &mut Vec<u32>,
    keep: usize,
    mode: TruncationMode,
    begin: &[u32],
) {
    match mode {
        TruncationMode::KeepStart => prompt.truncate(keep),
        TruncationMode::KeepEnd => {
            // A model that was trained with begin tokens never saw a text without them.
            let kept = if prompt.starts_with(begin) {
                begin.len().min(keep)
            } else {
                0
            };
            prompt.drain(kept..prompt.len() - (keep - kept));
        }
    }
}
