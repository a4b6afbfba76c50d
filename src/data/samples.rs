//! Files of responses drawn from a model, joined to a dataset by their prompts.
//!
//! Hides the file's columns and their checks.
//!
//! *Why*: what was drawn is a sequence of tokens, not a text: tokenising its text again may give
//! other tokens, which the model would never have drawn, with another probability. So ids are used
//! as they were drawn.

use super::Files;
use super::Tokenizer;
use super::read::Row;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;

/// One response to a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its number among the responses to the prompt; those without one keep the order of the file.
    pub index: Option<u64>,
    /// The seed that it was drawn with, if the file says.
    pub seed: Option<u64>,
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
    pub fn open(files: &Files, tokenizer: &Tokenizer) -> Result<Self> {
        let mut by_prompt: HashMap<String, Vec<Sample>> = HashMap::new();
        for row in files.rows() {
            let (_, row) = row?;
            let (prompt, sample) = sample(&row).map_err(|error| error.hint(COLUMNS))?;
            let ids = sample.ids.as_deref().unwrap_or_default();
            if let Some(id) = ids.iter().find(|&&id| id > tokenizer.max_id()) {
                let max = tokenizer.max_id();
                return Err(
                    Error::input(format!("token id {id} is outside the vocabulary"))
                        .hint(format!("the largest is {max}; did another model draw it?"))
                        .at(&row.place),
                );
            }
            let samples = by_prompt.entry(prompt).or_default();
            let same = |other: &Sample| (other.index, other.seed) == (sample.index, sample.seed);
            if sample.index.is_some() && samples.iter().any(same) {
                let what = "the file has this sample of this prompt already";
                return Err(Error::input(what)
                    .hint("each index of a prompt is there once, or of another seed")
                    .at(&row.place));
            }
            samples.push(sample);
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

const COLUMNS: &str =
    "a sample has prompt, response, finish_reason, and optional token_ids, index, seed";

fn sample(row: &Row) -> Result<(String, Sample)> {
    let number = |column: &str| {
        let value = row.get(column);
        let whole = |value: &Value| {
            value
                .as_u64()
                .ok_or_else(|| row.wrong(column, "a number from 0"))
        };
        value.map(whole).transpose()
    };
    let finished = match row.text("finish_reason")? {
        "stop" => true,
        "length" => false,
        other => {
            let what = format!("finish_reason is {other:?}, not \"stop\" or \"length\"");
            return Err(Error::input(what).at(&row.place));
        }
    };
    let ids = row
        .get("token_ids")
        .map(|list| token_ids(list).ok_or_else(|| row.wrong("token_ids", "one or more token ids")));
    let sample = Sample {
        index: number("index")?,
        seed: number("seed")?,
        response: row.text("response")?.to_owned(),
        ids: ids.transpose()?,
        finished,
    };
    Ok((row.text("prompt")?.to_owned(), sample))
}

fn token_ids(list: &Value) -> Option<Vec<u32>> {
    let list = list.as_array().filter(|list| !list.is_empty())?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    list.iter().map(id).collect()
}
