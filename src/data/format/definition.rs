//! What a dataset format is, and what its reader may use.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::data::chat::{Content, variables};
use crate::data::rows::read::Row;
use crate::data::rows::report::{Invalid, RowError};
use crate::error::Result;
use crate::loss::Role;

/// A prompt with its answers, as the row has them.
#[derive(Debug, Clone, PartialEq)]
pub struct RowExample {
    /// What every answer answers. `None`: the one answer is a whole text, or a whole conversation
    /// that has its prompt in it.
    pub prompt: Option<Content>,
    /// Chosen before rejected; none where the answers come from a sample file.
    pub answers: Vec<(Role, Content)>,
    /// p(chosen > rejected) where the row carries a soft label.
    pub preference: Option<f64>,
    /// The scores of the chosen and the rejected answer, where something reads them.
    pub scores: Option<[f64; 2]>,
    /// What a chat template gets beside the messages, by name: `tools`, and the row's own variables.
    pub variables: Map<String, Value>,
}

impl RowExample {
    /// Whether any of it is a list of messages.
    fn is_chat(&self) -> bool {
        let answers = self.answers.iter().map(|(_, answer)| answer);
        let mut contents = self.prompt.iter().chain(answers);
        contents.any(|content| matches!(content, Content::Messages(_)))
    }
}

/// What a row turned out to be.
pub type Reading = std::result::Result<RowExample, RowError>;

/// Which part of a prompt is kept when it is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncationMode {
    /// The end: the last turns of a conversation.
    KeepEnd,
    /// The start.
    KeepStart,
}

/// A dataset format.
#[derive(Debug)]
pub struct Format {
    /// Its name in a configuration.
    pub name: &'static str,
    /// The columns that it reads, for people.
    pub columns: &'static str,
    /// The part of a prompt that is kept when it is truncated, unless the configuration says otherwise.
    pub truncation: TruncationMode,
    /// Whether every row is a pair of a chosen and a rejected answer.
    pub has_pairs: bool,
    /// Whether its texts are transcripts, which write their turns themselves: no chat template.
    pub writes_turns: bool,
    /// Whether a row may be one conversation, of which some turns are the answer.
    pub splits_turns: bool,
    /// How many of a row's columns it would read; 0 where the row is not of this format.
    pub(super) fits: fn(&Row) -> usize,
    pub(super) read: fn(&Row) -> Reading,
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Format {
    /// From a row to its contents.
    pub fn example(&self, row: &Row) -> Reading {
        let read = (self.read)(row).and_then(|example| {
            // Rows of plain text may have such columns for whatever else.
            let variables = match example.is_chat() {
                true => variables(row)?,
                false => Map::new(),
            };
            Ok(RowExample {
                variables,
                ..example
            })
        });
        read.map_err(|error| match error {
            RowError::Unusable(reason, mut error) => {
                if error.remedy().is_none() && reason == Invalid::Malformed {
                    error = error.hint(self.columns_hint());
                }
                if error.places().is_empty() {
                    error = error.at(&row.place);
                }
                RowError::Unusable(reason, error)
            }
            error => error,
        })
    }

    /// The part of a prompt that is kept when it is truncated: what is `set`, else the end of a
    /// conversation, else what suits the format.
    pub fn truncation(&self, set: Option<TruncationMode>, is_chat: bool) -> TruncationMode {
        let by_format = match is_chat {
            true => TruncationMode::KeepEnd,
            false => self.truncation,
        };
        set.unwrap_or(by_format)
    }

    /// What would be valid, for messages.
    pub fn columns_hint(&self) -> String {
        format!("format `{}` reads {}", self.name, self.columns)
    }
}

/// The number of `columns` if the row has them all, else 0.
pub(super) fn has(row: &Row, columns: &[&str]) -> usize {
    match columns.iter().all(|column| row.get(column).is_some()) {
        true => columns.len(),
        false => 0,
    }
}

/// A pair of answers, with the soft label of the row.
pub(super) fn pair(row: &Row, prompt: Content, chosen: Content, rejected: Content) -> Reading {
    Ok(RowExample {
        prompt: Some(prompt),
        answers: vec![(Role::Chosen, chosen), (Role::Rejected, rejected)],
        preference: preference(row)?,
        scores: None,
        variables: Map::new(),
    })
}

/// The soft label of a row, if it has one.
pub(super) fn preference(row: &Row) -> Result<Option<f64>> {
    let Some(value) = row.get("preference") else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(p) if (0.0..=1.0).contains(&p) => Ok(Some(p)),
        _ => Err(row.wrong(
            "preference",
            "a number in [0, 1], the probability that `chosen` is preferred",
        )),
    }
}
