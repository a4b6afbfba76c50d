//! What a dataset format is, and what its reader may use.

use super::columns::Columns;
use super::messages;
use super::shapes;
use crate::data::chat::{Content, Message, variables};
use crate::data::rows::invalid::{Invalid, RowError};
use crate::data::rows::read::Row;
use crate::error::{Error, Result, nearest};
use crate::loss::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::borrow::Cow;

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
    /// How good each of several ranked answers is, the best first; else empty.
    pub ranking: Vec<f64>,
    /// What a chat template gets beside the messages, by name: `tools`, and the row's own variables.
    pub variables: Map<String, Json>,
}

impl RowExample {
    /// A prompt without answers.
    pub fn of_prompt(prompt: impl Into<Option<Content>>) -> Self {
        Self {
            prompt: prompt.into(),
            answers: Vec::new(),
            preference: None,
            scores: None,
            ranking: Vec::new(),
            variables: Map::new(),
        }
    }

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
    /// The names of these columns.
    pub names: &'static [&'static str],
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

/// A row with the columns that its format reads, and which of its own they are.
pub struct CommonRow<'a> {
    /// The row.
    pub row: Cow<'a, Row>,
    shape: Option<&'static shapes::Shape>,
}

impl Format {
    /// A row whose columns are where the format looks for them: where `columns` says they stand, or
    /// where a set that is known by its columns has them; with conversations as lists of messages.
    ///
    /// # Errors
    /// If the row has nothing where `columns` says.
    pub fn common<'a>(
        &self,
        row: &'a Row,
        columns: &Columns,
    ) -> std::result::Result<CommonRow<'a>, RowError> {
        let mut row = Cow::Borrowed(row);
        if !columns.is_empty() {
            let values = columns.values(&row)?;
            let moved = row.with(|fields| {
                // One layout of several is meant where the table names it.
                let whole = |name: &str| LAYOUTS.contains(&name);
                if values.iter().any(|(name, _)| whole(name)) {
                    fields.retain(|name, _| !whole(name));
                }
                for (name, value) in values {
                    fields.insert(name.to_owned(), value);
                }
            });
            row = Cow::Owned(moved);
        }
        let shape = match (self.fits)(&row) {
            0 => shapes::of(self.name, &row),
            _ => None,
        };
        if let Some(shape) = shape {
            // What the table says comes first.
            row = Cow::Owned(row.with(|fields| shape.fill(&row, fields, columns)));
        }
        for name in CONTENTS {
            let other = row
                .get(name)
                .and_then(|value| match messages::common(value) {
                    Cow::Owned(value) => Some(value),
                    Cow::Borrowed(_) => None,
                });
            if let Some(value) = other {
                row = Cow::Owned(row.with(|fields| {
                    fields.insert((*name).to_owned(), value);
                }));
            }
        }
        Ok(CommonRow { row, shape })
    }

    /// From a row to its contents.
    pub fn example(&self, row: &CommonRow) -> Reading {
        let read = no_images(&row.row).and_then(|()| (self.read)(&row.row));
        let read = read.and_then(|example| {
            // Rows of plain text may have such columns for whatever else.
            let variables = match example.is_chat() {
                true => variables(&row.row)?,
                false => Map::new(),
            };
            Ok(RowExample {
                variables,
                ..example
            })
        });
        read.map_err(|error| match error {
            RowError::Unusable(reason, mut error) => {
                if error.remedy().is_none() && reason.is_of_columns() {
                    error = error.hint(self.columns_hint());
                }
                if error.places().is_empty() {
                    error = error.at(&row.row.place);
                }
                RowError::Unusable(reason, error)
            }
            error => error,
        })
    }

    /// What its names stand for in a row of a set that is known by its columns, as `[data.columns]`
    /// would say it.
    pub fn known(&self, row: &Row, columns: &Columns) -> Vec<(&'static str, String)> {
        let common = self.common(row, columns).ok();
        let shape = common.and_then(|common| common.shape);
        shape.map(shapes::Shape::shown).unwrap_or_default()
    }

    /// Refuses a table of columns with one that the format does not read.
    ///
    /// # Errors
    /// Names the key.
    pub fn check_columns(&self, columns: &Columns) -> Result<()> {
        let mut names = columns.names();
        match names.find(|name| !self.names.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Error::input(format!(
                "format `{}` does not read `{name}`",
                self.name
            ))
            .hint(nearest(name, self.names.iter().copied()))
            .at_key(name)
            .at_key("columns")),
        }
    }

    /// Whether it reads a column of a row.
    pub fn reads(
        &self,
        common: &CommonRow,
        original: &Row,
        columns: &Columns,
        column: &str,
    ) -> bool {
        columns.takes(original, column)
            || common.shape.is_some_and(|shape| shape.reads(column))
            || (self.names.contains(&column) && !columns.names().any(|name| name == column))
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

/// The columns of which format `sft` reads one.
const LAYOUTS: &[&str] = &["messages", "completion", "text"];

/// The columns that may hold conversations.
const CONTENTS: &[&str] = &[
    "prompt",
    "chosen",
    "rejected",
    "completion",
    "messages",
    "instruction",
    "output_1",
    "output_2",
];

/// Refuses a row with a column of images; text by that name is passed over.
fn no_images(row: &Row) -> std::result::Result<(), RowError> {
    let holds = |value: &Json| match value {
        Json::Array(items) => !items.is_empty(),
        Json::Object(fields) => !fields.values().all(Json::is_null),
        _ => false,
    };
    let columns = ["image", "images"].into_iter();
    let mut found = columns.filter(|column| row.get(column).is_some_and(holds));
    match found.next() {
        None => Ok(()),
        Some(column) => Err(RowError::Unusable(
            Invalid::ContentIsNoText,
            Error::input(format!("column `{column}` holds images"))
                .hint(
                    "models are trained on text; without the column the row is trained on its text",
                )
                .at(&row.place),
        )),
    }
}

/// The number of `columns` if the row has them all, else 0.
pub(super) fn has(row: &Row, columns: &[&str]) -> usize {
    match columns.iter().all(|column| row.get(column).is_some()) {
        true => columns.len(),
        false => 0,
    }
}

/// A column that must be there.
pub(super) fn need<'a>(row: &'a Row, column: &str) -> std::result::Result<&'a Json, RowError> {
    row.need(column).map_err(|error| {
        let reason = match row.raw(column) {
            None => Invalid::MissingColumn,
            Some(_) => Invalid::NullColumn,
        };
        RowError::Unusable(reason, error)
    })
}

/// A column that must be a string.
pub(super) fn text(row: &Row, column: &str) -> std::result::Result<String, RowError> {
    need(row, column)?;
    Ok(row.text(column)?.to_owned())
}

/// A column that is a string or a list of messages.
pub(super) fn content(row: &Row, column: &str) -> std::result::Result<Content, RowError> {
    let value = need(row, column)?;
    Content::read(row, column).map_err(|error| match RowError::from(error) {
        RowError::Unusable(_, error) => RowError::Unusable(reason(value), error),
        error => error,
    })
}

// Why a value is not content.
fn reason(value: &Json) -> Invalid {
    let Some(items) = value.as_array() else {
        return Invalid::Malformed;
    };
    if items.is_empty() {
        return Invalid::NoMessages;
    }
    let Some(wrong) = items.iter().find(|item| Message::from_json(item).is_err()) else {
        return Invalid::Malformed;
    };
    let of_role =
        |role: &str| Message::from_json(&serde_json::json!({"role": role, "content": ""}));
    match (wrong["role"].as_str(), &wrong["content"]) {
        (None, _) => Invalid::NotAMessage,
        (Some(role), _) if of_role(role).is_err() => Invalid::UnknownRole,
        (_, Json::Null) => Invalid::NoContent,
        (_, Json::String(_)) => Invalid::NotAMessage,
        _ => Invalid::ContentIsNoText,
    }
}

/// A prompt and an answer to it, where the answer may be a conversation that contains the prompt.
pub(super) fn parted(prompt: Content, answer: Content) -> (Content, Content) {
    let Content::Messages(messages) = &answer else {
        return (prompt, answer);
    };
    if messages.first().is_some_and(Message::is_assistant) {
        return (prompt, answer);
    }
    let at = match &prompt {
        Content::Messages(prompt) if messages.starts_with(prompt) => Some(prompt.len()),
        Content::Messages(_) => None,
        Content::Text(_) => messages.iter().rposition(Message::is_assistant),
    };
    match at.map(|at| messages.split_at(at)) {
        Some((prompt, answer)) if !prompt.is_empty() && !answer.is_empty() => (
            Content::Messages(prompt.to_vec()),
            Content::Messages(answer.to_vec()),
        ),
        _ => (prompt, answer),
    }
}

/// A pair of answers, with the soft label of the row.
pub(super) fn pair(row: &Row, prompt: Content, chosen: Content, rejected: Content) -> Reading {
    Ok(RowExample {
        answers: vec![(Role::Chosen, chosen), (Role::Rejected, rejected)],
        preference: preference(row)?,
        ..RowExample::of_prompt(prompt)
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
