//! What is compared: a model's samples with the answers of the other side, joined by the prompt.
//!
//! Hides where the other side's answers are.
//!
//! *Why*: both files can have more prompts than the other, in another order. A prompt is what they
//! have in common, whole and to the letter, as everywhere in expo.

use std::collections::HashMap;

use crate::data::format::Format;
use crate::data::{Files, Sample, Tokenizer, chosen_answers, one_each};
use crate::error::{Error, Result};

/// A response as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text, as the file has it.
    pub text: String,
    /// Whether it ended with an end token, not at a length limit.
    pub finished: bool,
}

impl Answer {
    /// The answer that says nothing.
    pub fn null() -> Self {
        Self {
            text: String::new(),
            finished: true,
        }
    }

    /// Its length: Unicode characters, without the white space around it.
    pub fn characters(&self) -> usize {
        self.text.trim().chars().count()
    }
}

/// A prompt with the two answers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The prompt, before any cut.
    pub prompt: String,
    /// The response of the model that is judged.
    pub model: Answer,
    /// What it is held against.
    pub against: Answer,
}

/// What a model's samples are held against.
pub enum Against<'a> {
    /// The chosen answers of these rows, laid out as the format says; with the tokenizer of the model
    /// whose chat template the prompts went through, where they are conversations.
    Chosen(&'a Files, &'a Format, Option<&'a Tokenizer>),
    /// Another model's samples.
    Samples(&'a Files),
}

/// The items of two files.
#[derive(Debug, Default)]
pub struct Items {
    /// In the order of the samples.
    pub items: Vec<Item>,
    /// Prompts of the samples that the other side has no answer to.
    pub unanswered: usize,
    /// Rows of the other side that could not be used; 0 for samples.
    pub unusable: usize,
    /// Rows of the other side whose prompt an earlier one has.
    pub repeated: usize,
    /// Items left out, because the judge has no room for them.
    pub skipped: usize,
    /// Items with an answer that is cut to what the judge has room for.
    pub cut: usize,
}

impl Items {
    /// Joins one response to each prompt of `samples`, the first or the one of number `index`, with the
    /// other side; of another model's samples, the one of the same number is taken.
    ///
    /// # Errors
    /// If they have no prompt in common.
    pub fn open(samples: &Files, index: Option<u64>, against: &Against) -> Result<Self> {
        let mut found = Self::default();
        let own = one_each(samples, index)?;
        let (mut others, place): (HashMap<String, Answer>, &Files) = match against {
            Against::Chosen(files, format, tokenizer) => {
                let rows = chosen_answers(files, format, *tokenizer)?;
                (found.unusable, found.repeated) = (rows.unusable, rows.repeated);
                let answer = |(prompt, text)| {
                    let finished = true;
                    (prompt, Answer { text, finished })
                };
                (rows.by_prompt.into_iter().map(answer).collect(), files)
            }
            Against::Samples(files) => {
                let rows = one_each(files, index)?.into_iter();
                (rows.map(|(prompt, s)| (prompt, s.into())).collect(), files)
            }
        };
        for (prompt, sample) in own {
            match others.remove(&prompt) {
                None => found.unanswered += 1,
                Some(against) => found.items.push(Item {
                    prompt,
                    model: sample.into(),
                    against,
                }),
            }
        }
        match found.items.is_empty() {
            false => Ok(found),
            true => Err(Error::input(format!("no prompt of it is in {place}"))
                .hint(
                    "both need the prompt as a samples file has it; that of a conversation went \
                     through the chat template of the tokenizer",
                )
                .option("tokenizer", "")
                .at(samples)),
        }
    }
}

impl From<Sample> for Answer {
    fn from(sample: Sample) -> Self {
        Self {
            text: sample.response,
            finished: sample.finished,
        }
    }
}
