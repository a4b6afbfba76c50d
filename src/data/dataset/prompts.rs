//! The prompts of files, for sampling.
//!
//! Hides formats, repetition and the length limit of a prompt.
//!
//! *Why*: what is drawn joins the rows by the prompt's text before any cut, so text and ids travel
//! together, and a prompt that many rows share is drawn for once.

use super::left_out::LeftOut;
use super::render::Renderer;
use super::row::RowReader;
use crate::data::chat::Content;
use crate::data::config::{PromptConfig, TokenizeConfig};
use crate::data::format::RowExample;
use crate::data::rows::read::Row;
use crate::data::rows::{Files, Invalid, RowError};
use crate::data::tokens::TokenRule;
use crate::data::tokens::Tokenizer;
use crate::data::tokens::length::cut_prompt;
use crate::error::{Error, Result};
use std::collections::HashSet;

/// A prompt as text and as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Before any cut, as samples name it.
    pub text: String,
    /// What is asked: the row's text, or the last message, before any template.
    pub instruction: String,
    /// The begin tokens in front; cut to `max_prompt_length` where it is longer.
    pub ids: Vec<u32>,
    /// `file:line` of the first row that has it.
    pub place: String,
    /// Whether `ids` were cut.
    pub cut: bool,
}

/// What is drawn after: a prompt's ids.
#[derive(Debug, Clone, Copy)]
pub struct PromptTokens<'a> {
    /// The ids.
    pub ids: &'a [u32],
    /// How messages name it.
    pub place: &'a str,
}

impl<'a> From<&'a Prompt> for PromptTokens<'a> {
    fn from(prompt: &'a Prompt) -> Self {
        Self {
            ids: &prompt.ids,
            place: &prompt.place,
        }
    }
}

impl Prompt {
    /// The prompt of a string, uncut; `place` names it in messages. With `apply_chat_template` it is
    /// the user's message.
    pub fn of_text(
        text: &str,
        place: &str,
        config: &TokenizeConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let instruction = text.to_owned();
        let row = RowExample::of_prompt(Content::Text(text.to_owned()));
        let rendered = Renderer::new(config, tokenizer).prompt(row);
        let (text, _) = rendered.map_err(RowError::into_error)?;
        Ok(Self {
            ids: TokenRule::new(config, tokenizer).prompt(&text)?,
            text,
            instruction,
            place: place.to_owned(),
            cut: false,
        })
    }
}

/// The unique prompts of `files` in order of first appearance. Rows have the
/// configuration's format; a text file has a prompt on each line. Of a row only
/// the prompt is used, so what its answers lack does not matter; a row without a prompt, or with one
/// that has no tokens, is left out or an error by `on_invalid`.
pub fn prompts(files: &Files, config: &PromptConfig, tokenizer: &Tokenizer) -> Result<Vec<Prompt>> {
    Ok(read_prompts(files, config, tokenizer)?.0)
}

/// As [`prompts`], with the rows that are left out: of each reason how many and which, in words.
pub fn read_prompts(
    files: &Files,
    config: &PromptConfig,
    tokenizer: &Tokenizer,
) -> Result<(Vec<Prompt>, Vec<String>)> {
    let checked = config.validate();
    checked.map_err(|error| error.at_key("data"))?;
    let format = config.format.of(files, &config.columns)?;
    config.check(format).map_err(|error| error.at_key("data"))?;
    let rule = TokenRule::new(&config.tokens, tokenizer);
    let renderer = Renderer::new(&config.tokens, tokenizer);
    let mut rows_of = RowReader::of_prompts(format, config);
    let mut left_out = LeftOut::new(files, config.on_invalid, config.max_invalid_fraction);
    let (mut rows, mut seen) = (0, HashSet::new());
    let mut prompts = Vec::new();
    for record in files.records() {
        let (_, record) = record?;
        rows += 1;
        let place = record.place;
        let read = |row: Row| {
            let (example, _) = rows_of.read(&row)?;
            let asked = example.prompt.as_ref().and_then(asked);
            let rendered = renderer.prompt(example);
            Ok((asked, rendered.map_err(|error| error.at(&place))?))
        };
        let row = record
            .row
            .map_err(|error| RowError::Unusable(Invalid::NotAnObject, error));
        let (asked, (text, is_chat)) = match row.and_then(read) {
            Ok(prompt) => prompt,
            Err(error) => {
                left_out.add(error, &place)?;
                continue;
            }
        };
        if !seen.insert(text.clone()) {
            continue;
        }
        let mut ids = match rule.prompt(&text) {
            Ok(ids) => ids,
            Err(error) => {
                left_out.add(RowError::of_tokens(error).at(&place), &place)?;
                continue;
            }
        };
        if ids.is_empty() {
            let error = Error::input("the prompt has no tokens");
            let error = RowError::from(error.hint("nothing can be drawn after it"));
            left_out.add(error.at(&place), &place)?;
            continue;
        }
        let keep = config.max_prompt_length;
        let keep = keep.filter(|&keep| ids.len() > keep);
        if let Some(keep) = keep {
            let mode = format.truncation(config.truncation_mode, is_chat);
            cut_prompt(&mut ids, keep, mode, tokenizer.begin());
        }
        prompts.push(Prompt {
            instruction: asked.unwrap_or_else(|| text.clone()),
            text,
            ids,
            place: place.to_string(),
            cut: keep.is_some(),
        });
    }
    left_out.check(rows, prompts.len())?;
    Ok((prompts, left_out.said()))
}

/// What a prompt asks, in its own words.
fn asked(prompt: &Content) -> Option<String> {
    match prompt {
        Content::Text(text) => Some(text.clone()),
        Content::Messages(messages) => messages.last()?.text().map(str::to_owned),
    }
}
