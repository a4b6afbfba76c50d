//! Where a row has the columns that its format reads: `[data.columns]`.
//!
//! Hides paths into nested columns, and constants.
//!
//! *Why*: the sets that people have name the same things in a hundred ways. What a format reads has one
//! name, and a table says where it stands, so that no file has to be written anew.

use super::messages::parsed;
use crate::data::rows::invalid::{Invalid, RowError};
use crate::data::rows::read::Row;
use crate::error::{Error, nearest};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

/// Every name that some format reads.
pub(super) const NAMES: &[&str] = &[
    "prompt",
    "system",
    "chosen",
    "rejected",
    "completion",
    "label",
    "messages",
    "text",
    "tools",
    "chat_template_kwargs",
    "preference",
    "score_chosen",
    "score_rejected",
    "instruction",
    "output_1",
    "output_2",
    "winner",
    "answers",
    "ranks",
    "scores",
];

/// From the names that a format reads to where a row has them; a name that is not there is the column
/// of that name.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(
    try_from = "BTreeMap<String, Source>",
    into = "BTreeMap<String, Source>"
)]
pub struct Columns(BTreeMap<String, Source>);

/// Where a value comes from: a string in a configuration, or `{ value = ... }`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "expected a column as in \"question\" or \"answers[0].text\", or { value = ... }"
)]
pub enum Source {
    /// A column, or something in one.
    Path(Path),
    /// The same in every row.
    Value(Constant),
}

/// A value that every row has.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "BTreeMap<String, Json>")]
pub struct Constant {
    value: Json,
}

// By itself a list of one item would do for a table of one.
impl TryFrom<BTreeMap<String, Json>> for Constant {
    type Error = &'static str;

    fn try_from(mut table: BTreeMap<String, Json>) -> Result<Self, Self::Error> {
        match (table.remove("value"), table.is_empty()) {
            (Some(value), true) => Ok(Self { value }),
            _ => Err("a constant is { value = ... }"),
        }
    }
}

/// The name of a column, or the way to something in one: `a.b[0]`, `a[-1]`, of every item `a[].b`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    // From the end where it is negative.
    Item(i64),
    // What every item has, as a list.
    Each,
}

impl TryFrom<BTreeMap<String, Source>> for Columns {
    type Error = String;

    fn try_from(table: BTreeMap<String, Source>) -> Result<Self, String> {
        for (name, source) in &table {
            if !NAMES.contains(&name.as_str()) {
                return Err(format!(
                    "no format reads `{name}`; {}",
                    nearest(name, NAMES.iter().copied())
                ));
            }
            if matches!(source, Source::Value(Constant { value: Json::Null })) {
                return Err(format!("the value of `{name}` is null; leave it out"));
            }
        }
        Ok(Self(table))
    }
}

impl From<Columns> for BTreeMap<String, Source> {
    fn from(columns: Columns) -> Self {
        columns.0
    }
}

impl Columns {
    /// Whether every name is the column of that name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names that stand elsewhere.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether the row's column `name` is read for some other name.
    pub(super) fn takes(&self, row: &Row, column: &str) -> bool {
        self.0.values().any(|source| match source {
            Source::Path(path) => path.root(row) == column,
            Source::Value(_) => false,
        })
    }

    /// Every name that stands elsewhere with its value; null where the row has null.
    pub(super) fn values(&self, row: &Row) -> Result<Vec<(&str, Json)>, RowError> {
        let value = |(name, source): (&String, &Source)| match source {
            Source::Value(constant) => Ok(constant.value.clone()),
            Source::Path(path) => path.find(row).ok_or_else(|| {
                let what = format!(
                    "the row has no `{path}`, which data.columns names for `{name}`; it has {}",
                    row.names()
                );
                RowError::Unusable(Invalid::MissingColumn, Error::input(what).at(&row.place))
            }),
        };
        let values = self.0.iter();
        values
            .map(|(name, source)| Ok((name.as_str(), value((name, source))?)))
            .collect()
    }
}

impl Path {
    // The column that it begins in.
    fn root<'a>(&'a self, row: &Row) -> &'a str {
        match (row.raw(&self.text), self.steps.first()) {
            (None, Some(Step::Field(name))) => name,
            _ => &self.text,
        }
    }

    /// What stands there. A column that has the whole path for its name comes first.
    pub(super) fn find(&self, row: &Row) -> Option<Json> {
        if let Some(value) = row.raw(&self.text) {
            return Some(value.clone());
        }
        let (first, rest) = self.steps.split_first()?;
        let Step::Field(column) = first else {
            return None;
        };
        within(row.raw(column)?, rest)
    }
}

// A list or an object may stand there as text, as CSV has it.
fn within(value: &Json, steps: &[Step]) -> Option<Json> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(value.clone());
    };
    if let Json::String(text) = value {
        return within(&parsed(text)?, steps);
    }
    let next = match step {
        Step::Field(name) => value.get(name)?,
        Step::Each => {
            let items = value.as_array()?.iter();
            let item = |item| within(item, rest).unwrap_or(Json::Null);
            return Some(items.map(item).collect());
        }
        Step::Item(index) => {
            let items = value.as_array()?;
            let at = match index.is_negative() {
                true => items.len().checked_sub(index.unsigned_abs() as usize)?,
                false => *index as usize,
            };
            items.get(at)?
        }
    };
    within(next, rest)
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a column: valid are e.g. question, a.b, answers[0].text, answers[].text, a[-1]"
            )
        };
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (name, mut items) = part.split_at(part.find('[').unwrap_or(part.len()));
            if name.is_empty() || name.contains(']') {
                return Err(wrong());
            }
            steps.push(Step::Field(name.to_owned()));
            while !items.is_empty() {
                let item = items
                    .strip_prefix('[')
                    .and_then(|rest| rest.split_once(']'));
                let (index, rest) = item.ok_or_else(wrong)?;
                steps.push(match index {
                    "" => Step::Each,
                    index => Step::Item(index.parse().map_err(|_| wrong())?),
                });
                items = rest;
            }
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }
}

impl TryFrom<String> for Path {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.text
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromIterator<(String, Path)> for Columns {
    fn from_iter<I: IntoIterator<Item = (String, Path)>>(pairs: I) -> Self {
        let source = |(name, path)| (name, Source::Path(path));
        Self(pairs.into_iter().map(source).collect())
    }
}
