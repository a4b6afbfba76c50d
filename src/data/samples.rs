//! Files of responses drawn from a model, joined to a dataset by their prompts.
//!
//! Hides the file's columns and their checks.
//!
//! *Why*: what was drawn is a sequence of tokens, not a text: tokenising its text again may give
//! other tokens, which the model would never have drawn, with another probability. So ids are used
//! as they were drawn.

use super::Tokenizer;
use super::read::{self, Row};
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// One response to a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its number among the responses to the prompt.
    pub index: u64,
    /// Its text.
    pub response: String,
    /// Its ids as drawn, the end token included; `None` where the file has only text.
    pub ids: Option<Vec<u32>>,
    /// Whether it ended by itself, not at a length limit.
    pub finished: bool,
}

/// The responses of a sample file.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    by_prompt: HashMap<String, Vec<Sample>>,
}

impl Samples {
    /// Reads JSON lines with `prompt`, `response`, `token_ids` (optional), `finish_reason`
    /// (`"stop"` or `"length"`) and `index` (optional, else the order of the file). Ids that the
    /// tokenizer does not have are an error: they come from another model.
    pub fn open(path: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let mut by_prompt: HashMap<String, Vec<Sample>> = HashMap::new();
        for row in read::rows(path)? {
            let row = row?;
            let samples = by_prompt.entry(row.text("prompt")?.to_owned()).or_default();
            samples.push(sample(&row, samples.len() as u64, tokenizer)?);
        }
        for samples in by_prompt.values_mut() {
            samples.sort_by_key(|sample| sample.index);
        }
        Ok(Self { by_prompt })
    }

    /// The responses to a prompt, before any cut, in the order of their index.
    pub fn of(&self, prompt: &str) -> &[Sample] {
        self.by_prompt.get(prompt).map_or(&[], Vec::as_slice)
    }

    /// The number of different prompts.
    pub fn prompts(&self) -> usize {
        self.by_prompt.len()
    }
}

fn sample(row: &Row, next: u64, tokenizer: &Tokenizer) -> Result<Sample> {
    let index = match row.get("index") {
        None => next,
        Some(index) => index
            .as_u64()
            .ok_or_else(|| row.wrong("index", "a number from 0"))?,
    };
    let finished = match row.text("finish_reason")? {
        "stop" => true,
        "length" => false,
        other => {
            return Err(Error::input(format!("finish_reason is {other:?}"))
                .hint("valid: \"stop\", \"length\"")
                .at(row.place()));
        }
    };
    let ids = row
        .get("token_ids")
        .map(|_| token_ids(row, tokenizer))
        .transpose()?;
    Ok(Sample {
        index,
        response: row.text("response")?.to_owned(),
        ids,
        finished,
    })
}

fn token_ids(row: &Row, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let valid = "a list, not empty, of token ids";
    let list = row.need("token_ids")?.as_array();
    let list = list.filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| row.wrong("token_ids", valid))?;
    let id = |value: &Value| match value.as_u64() {
        None => Err(row.wrong("token_ids", valid)),
        Some(id) => u32::try_from(id)
            .ok()
            .filter(|&id| id <= tokenizer.max_id())
            .ok_or_else(|| {
                let max = tokenizer.max_id();
                Error::input(format!("token id {id} is outside the vocabulary"))
                    .hint(format!(
                        "the model's largest is {max}; was it drawn by another model?"
                    ))
                    .at(row.place())
            }),
    };
    list.iter().map(id).collect()
}
