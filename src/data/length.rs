//! The length limit of an example.
//!
//! Hides what is cut, from where, and in which order.
//!
//! *Why*: the decision is made once per example, by its longest response, so that the prompt stays
//! the same for all: with different prompts the margin of a pair would compare different things. A
//! prompt with samples is cut as it was when they were drawn.

use super::config::DataConfig;
use super::format::TruncationMode;
use super::{Example, Tokenizer};
use crate::loss::Role;

/// What was cut of an example.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cuts {
    pub prompt: bool,
    /// The places of the responses that were cut.
    pub responses: Vec<usize>,
}

pub(super) fn cut(
    example: &mut Example,
    config: &DataConfig,
    tokenizer: &Tokenizer,
    is_chat: bool,
) -> Cuts {
    let mut cuts = Cuts::default();
    let limit = config.max_length;
    let longest = example.responses.iter().map(|r| r.ids.len()).max();
    let longest = longest.unwrap_or(0);
    let fits = example.prompt.len() + longest <= limit;
    // Who draws a response does not know its length, so the prompt that it was drawn after had to
    // leave room for any.
    let drawn = example.responses.iter().any(|r| r.role == Role::Sampled);
    if fits && !drawn {
        return cuts;
    }
    if example.prompt.len() > config.max_prompt_length {
        cuts.prompt = true;
        cut_prompt(&mut example.prompt, config, tokenizer.begin(), is_chat);
    }
    if example.prompt.len() + longest <= limit {
        return cuts;
    }
    let room = if config.official_truncation {
        limit - config.max_prompt_length
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

pub(super) fn cut_prompt(prompt: &mut Vec<u32>, config: &DataConfig, begin: &[u32], is_chat: bool) {
    let keep = config.max_prompt_length;
    match config.truncation(is_chat) {
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
