//! Rows of public sets that no format reads as they are, and what makes one of each.
//!
//! Hides their columns.
//!
//! *Why*: a set is known by the columns it has. So a table says for each which of them a format's
//! columns are; it is asked only where the format cannot read the row as it is.

use super::columns::Path;
use super::messages::parsed;
use crate::data::rows::read::Row;
use serde_json::{Map, Value as Json, json};

/// A set's columns, as a format reads them.
pub(super) struct Shape {
    pub format: &'static str,
    /// What tells it from others.
    needs: &'static [&'static str],
    /// From the format's names to what they are.
    pub takes: &'static [(&'static str, Take)],
}

/// Where a value of the format comes from.
pub(super) enum Take {
    /// As in `[data.columns]`.
    Path(&'static str),
    /// Made of these columns.
    Made(&'static [&'static str], fn(&Row) -> Option<Json>),
}

use Take::{Made, Path as At};

/// The first whose columns a row has is meant.
pub(super) static SHAPES: &[Shape] = &[
    // ShareGPT with two answers.
    Shape {
        format: "pairs",
        needs: &["conversations", "chosen", "rejected"],
        takes: &[("prompt", At("conversations"))],
    },
    // Orca.
    Shape {
        format: "pairs",
        needs: &["question", "chosen", "rejected"],
        takes: &[("prompt", At("question"))],
    },
    Shape {
        format: "pairs",
        needs: &["instruction", "chosen", "rejected"],
        takes: &[("prompt", Made(&["instruction", "input"], instruction))],
    },
    Shape {
        format: "pairs",
        needs: &["input", "chosen", "rejected"],
        takes: &[("prompt", At("input"))],
    },
    // OpenAI.
    Shape {
        format: "pairs",
        needs: &["input", "preferred_output", "non_preferred_output"],
        takes: &[
            ("prompt", At("input.messages")),
            ("chosen", At("preferred_output")),
            ("rejected", At("non_preferred_output")),
            ("tools", At("input.tools")),
        ],
    },
    // ShareGPT.
    Shape {
        format: "sft",
        needs: &["conversations"],
        takes: &[("messages", At("conversations"))],
    },
    Shape {
        format: "sft",
        needs: &["conversation"],
        takes: &[("messages", At("conversation"))],
    },
    // Alpaca.
    Shape {
        format: "sft",
        needs: &["instruction", "output"],
        takes: &[
            (
                "prompt",
                Made(&["instruction", "input", "history"], with_history),
            ),
            ("completion", At("output")),
        ],
    },
    // Dolly.
    Shape {
        format: "sft",
        needs: &["instruction", "response"],
        takes: &[
            ("prompt", Made(&["instruction", "context"], instruction)),
            ("completion", At("response")),
        ],
    },
    // HelpSteer2.
    Shape {
        format: "sft",
        needs: &["prompt", "response"],
        takes: &[("completion", At("response"))],
    },
];

/// The shape of `format` that a row has.
pub(super) fn of(format: &str, row: &Row) -> Option<&'static Shape> {
    let mut of_format = SHAPES.iter().filter(|shape| shape.format == format);
    of_format.find(|shape| shape.fits(row))
}

impl Shape {
    /// Whether a row has its columns.
    pub fn fits(&self, row: &Row) -> bool {
        self.needs.iter().all(|column| row.get(column).is_some())
    }

    /// Whether the column is read.
    pub fn reads(&self, column: &str) -> bool {
        self.takes.iter().any(|(_, take)| match take {
            At(path) => path.split(['.', '[']).next() == Some(column),
            Made(columns, _) => columns.contains(&column),
        })
    }

    /// Puts what the format reads among a row's columns.
    pub fn fill(&self, row: &Row, columns: &mut Map<String, Json>) {
        for (name, take) in self.takes {
            let value = match take {
                At(path) => path.parse::<Path>().ok().and_then(|path| path.find(row)),
                Made(_, make) => make(row),
            };
            columns.insert((*name).to_owned(), value.unwrap_or(Json::Null));
        }
    }
}

/// What is asked, and on the next line what it is asked of.
fn instruction(row: &Row) -> Option<Json> {
    let asked = row.get("instruction")?;
    let about = row.get("input").or_else(|| row.get("context"));
    match (asked.as_str(), about.and_then(Json::as_str)) {
        (Some(asked), Some(about)) if !about.is_empty() => Some(format!("{asked}\n{about}").into()),
        _ => Some(asked.clone()),
    }
}

/// The same behind the turns before it, pairs of what the user and the assistant said.
fn with_history(row: &Row) -> Option<Json> {
    let asked = instruction(row)?;
    let history = match row.get("history") {
        Some(Json::String(text)) => parsed(text)?,
        Some(history) => history.clone(),
        None => return Some(asked),
    };
    let turns = history.as_array().filter(|turns| !turns.is_empty());
    let Some(turns) = turns else {
        return Some(asked);
    };
    let mut messages = Vec::new();
    for turn in turns {
        messages.push(json!({"role": "user", "content": turn[0]}));
        messages.push(json!({"role": "assistant", "content": turn[1]}));
    }
    messages.push(json!({"role": "user", "content": asked}));
    Some(messages.into())
}
