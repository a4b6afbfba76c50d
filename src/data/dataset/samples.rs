//! Files of responses drawn from a model, joined to a dataset by their prompts.
//!
//! Hides the file's columns and their checks, and that responses are read back only for the rows
//! that are being tokenised: of each, its place is in memory.
//!
//! *Why*: what was drawn is a sequence of tokens, not a text: tokenising its text again may give
//! other tokens, which the model would never have drawn, with another probability. So ids are used
//! as they were drawn.

use super::store::{Key, Span, Store, key};
use crate::data::rows::Files;
use crate::data::rows::read::Row;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;

/// One response to a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its number among the responses to the prompt; those without one keep the order of the file.
    pub index: Option<u64>,
    /// The seed that it was drawn with, if the file says.
    pub seed: Option<u64>,
    /// Its text.
    pub response: String,
    /// Its ids as drawn, the end token included; `None` where the file has only text.
    pub ids: Option<Vec<u32>>,
    /// Whether it ended with an end token, not at a length limit or a stop text.
    pub finished: bool,
}

impl Sample {
    /// The columns of a row, the first of them the prompt.
    ///
    /// # Errors
    /// If a column is missing or not what it should be.
    pub fn of_row(row: &Row) -> Result<(String, Self)> {
        Self::read(row).map_err(|error| error.hint(COLUMNS))
    }

    fn read(row: &Row) -> Result<(String, Self)> {
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
            "length" | "stop_text" => false,
            other => {
                let what = format!(
                    "finish_reason is {other:?}, not \"stop\", \"stop_text\" or \"length\""
                );
                return Err(Error::input(what).at(&row.place));
            }
        };
        let ids = row.get("token_ids").map(|list| {
            token_ids(list).ok_or_else(|| row.wrong("token_ids", "one or more token ids"))
        });
        let sample = Self {
            index: number("index")?,
            seed: number("seed")?,
            response: row.text("response")?.to_owned(),
            ids: ids.transpose()?,
            finished,
        };
        Ok((row.text("prompt")?.to_owned(), sample))
    }
}

/// The responses of a sample file.
#[derive(Debug, Default)]
pub struct Samples {
    store: Store,
    by_prompt: HashMap<Key, Vec<Kept>>,
}

/// Where a sample is, and what tells it from the others of its prompt.
#[derive(Debug)]
struct Kept {
    index: Option<u64>,
    seed: Option<u64>,
    span: Span,
}

impl Samples {
    /// Reads JSON lines with `prompt`, `response`, `token_ids` (optional), `finish_reason`
    /// (`"stop"`, `"stop_text"` or `"length"`) and `index` (optional, else the order of the file). Ids that are
    /// not below `vocabulary` are an error: they come from another model. A model draws now and then, where its
    /// vocabulary is padded, an id that its tokenizer does not have.
    pub fn open(files: &Files, vocabulary: usize) -> Result<Self> {
        let mut all = Self::default();
        for row in files.rows() {
            let (_, row) = row?;
            let (prompt, sample) = Sample::of_row(&row)?;
            let ids = sample.ids.as_deref().unwrap_or_default();
            if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(Error::input(format!(
                    "token id {id} is outside the vocabulary of {vocabulary}"
                ))
                .hint("did another model draw it?")
                .at(&row.place));
            }
            let samples = all.by_prompt.entry(key(&prompt)).or_default();
            let same = |other: &Kept| (other.index, other.seed) == (sample.index, sample.seed);
            if sample.index.is_some() && samples.iter().any(same) {
                let what = "the file has this sample of this prompt already";
                return Err(Error::input(what)
                    .hint("each index of a prompt is there once, or of another seed")
                    .at(&row.place));
            }
            samples.push(Kept {
                index: sample.index,
                seed: sample.seed,
                span: all.store.push_value(&sample)?,
            });
        }
        for samples in all.by_prompt.values_mut() {
            samples.sort_by_key(|sample| sample.index);
        }
        Ok(all)
    }

    /// Whether there is a response to a prompt.
    pub fn has(&self, prompt: &str) -> bool {
        self.by_prompt.contains_key(&key(prompt))
    }

    /// The responses to a prompt, before any cut, in the order of their index.
    pub fn of(&self, prompt: &str) -> Result<Vec<Sample>> {
        let kept = self.by_prompt.get(&key(prompt)).into_iter().flatten();
        kept.map(|kept| self.store.value(kept.span)).collect()
    }

    /// The number of different prompts.
    pub fn prompts(&self) -> usize {
        self.by_prompt.len()
    }
}

/// One response to each prompt of a file, in the order of the file: the one of number `index`, or the
/// first. A prompt that has no response of that number is left out. Ids are not looked at.
///
/// # Errors
/// If no prompt has one.
pub fn one_each(files: &Files, index: Option<u64>) -> Result<Vec<(String, Sample)>> {
    // How many responses of a prompt went by, and whether one of them was taken.
    let mut seen: HashMap<String, (u64, bool)> = HashMap::new();
    let mut taken = Vec::new();
    for row in files.rows() {
        let (_, row) = row?;
        let (prompt, sample) = Sample::of_row(&row)?;
        let (number, done) = seen.entry(prompt.clone()).or_default();
        let own = sample.index.unwrap_or(*number);
        *number += 1;
        if !*done && index.is_none_or(|index| index == own) {
            *done = true;
            taken.push((prompt, sample));
        }
    }
    match (taken.is_empty(), index) {
        (false, _) => Ok(taken),
        (true, None) => Err(Error::input("no rows").hint(COLUMNS).at(files)),
        (true, Some(index)) => Err(Error::input(format!("no response has the index {index}"))
            .hint("they are counted from 0 for each prompt")
            .at(files)),
    }
}

const COLUMNS: &str =
    "a sample has prompt, response, finish_reason, and optional token_ids, index, seed";

fn token_ids(list: &Value) -> Option<Vec<u32>> {
    let list = list.as_array().filter(|list| !list.is_empty())?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    list.iter().map(id).collect()
}
