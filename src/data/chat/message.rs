//! What a conversation is made of: messages, and columns that hold them.
//!
//! *Why*: rows come from anywhere. What is not a message is refused with its place, before a template of
//! somebody else meets it.

use super::python::is_space;
use crate::data::rows::read::Row;
use crate::error::{Error, Result, nearest};
use crate::io::untrusted;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
const MESSAGE: &str = "a message is {\"role\": ..., \"content\": ...}";

/// A turn of a conversation: an object with `role` and `content`, and what else a template reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(Map<String, Json>);

impl Message {
    /// A turn of `role` that says `content`.
    pub fn new(role: &str, content: &str) -> Self {
        let fields = [("role", role), ("content", content)];
        Self(
            fields
                .map(|(key, text)| (key.to_owned(), text.into()))
                .into_iter()
                .collect(),
        )
    }

    /// Whether the model itself says it.
    pub fn is_assistant(&self) -> bool {
        self.role() == "assistant"
    }

    /// Whether it tells the model what to be.
    pub fn is_instruction(&self) -> bool {
        matches!(self.role(), "system" | "developer")
    }

    /// Whether it is to be learned: it says something, and its `weight`, if it has one, is not 0.
    pub fn is_learned(&self) -> bool {
        self.0.get("weight").and_then(Json::as_f64) != Some(0.0) && !self.is_blank()
    }

    /// What it says, where that is a text.
    pub fn text(&self) -> Option<&str> {
        self.0.get("content").and_then(Json::as_str)
    }

    /// The text without white space at its ends, as Python strips it; empty where there is none.
    pub(in crate::data) fn stripped(&self) -> &str {
        let text = self.text().unwrap_or_default();
        text.trim_matches(is_space)
    }

    /// Whether it says nothing: no tool is called, and the content is empty or only white space.
    pub fn is_blank(&self) -> bool {
        let content = self.text().unwrap_or_default();
        content.trim().is_empty() && !has_calls(&self.0)
    }

    /// The names of the functions that it calls.
    pub(in crate::data) fn calls(&self) -> Vec<&str> {
        let calls = self.0.get("tool_calls").and_then(Json::as_array);
        let calls = calls.into_iter().flatten();
        calls
            .filter_map(|call| call["function"]["name"].as_str().or(call["name"].as_str()))
            .collect()
    }

    /// Who says it.
    pub fn role(&self) -> &str {
        self.0
            .get("role")
            .and_then(Json::as_str)
            .unwrap_or_default()
    }

    /// From a JSON object with `role` and `content`; what is null is the same as missing.
    pub fn from_json(value: &Json) -> Result<Self> {
        let fields = value
            .as_object()
            .ok_or_else(|| Error::input("is not an object").hint(MESSAGE))?;
        let given = fields.iter().filter(|(_, value)| !value.is_null());
        let mut fields: Map<String, Json> = given.map(|(k, v)| (k.clone(), v.clone())).collect();
        let role = match fields.get("role") {
            Some(Json::String(role)) => role,
            Some(_) => return Err(Error::input("has a `role` that is not a string").hint(MESSAGE)),
            None => return Err(Error::input("has no `role`").hint(MESSAGE)),
        };
        if !ROLES.contains(&role.as_str()) {
            return Err(Error::input(format!("has the role {role:?}")).hint(nearest(role, ROLES)));
        }
        match fields.get("content") {
            Some(Json::String(_)) => {}
            None if has_calls(&fields) => {}
            None => return Err(Error::input("has no `content`").hint(MESSAGE)),
            Some(Json::Array(_)) => {
                return Err(Error::input("has a list as `content`")
                    .hint("contents are text; images and other parts are not supported"));
            }
            Some(_) => {
                return Err(Error::input("has a `content` that is not a string").hint(MESSAGE));
            }
        }
        name_reasoning(&mut fields);
        Ok(Self(fields))
    }
}

fn has_calls(fields: &Map<String, Json>) -> bool {
    let calls = fields.get("tool_calls");
    calls.is_some_and(|calls| calls.as_array().is_none_or(|calls| !calls.is_empty()))
}

// A template reads a model's reasoning under one of several names; transformers fills them all.
fn name_reasoning(fields: &mut Map<String, Json>) {
    let names = ["reasoning_content", "thinking", "reasoning"];
    let reasoning = names.iter().find_map(|name| fields.get(*name).cloned());
    if let Some(reasoning) = reasoning {
        fields
            .entry("thinking")
            .or_insert_with(|| reasoning.clone());
        fields.insert("reasoning_content".into(), reasoning);
    }
}

/// What a chat template gets beside the messages of a row: its `tools`, and its `chat_template_kwargs`. Each may
/// be JSON in a string, since tables want one type in a column.
pub(in crate::data) fn variables(row: &Row) -> Result<Map<String, Json>> {
    let parsed = |column: &str, what: &str| match row.get(column) {
        None | Some(Json::Null) => Ok(Json::Null),
        Some(Json::String(text)) if text.trim().is_empty() => Ok(Json::Null),
        Some(Json::String(text)) => untrusted::parse(text).map_err(|_| row.wrong(column, what)),
        Some(value) => Ok(value.clone()),
    };
    let object = "an object of variables of the chat template";
    let mut variables = match parsed("chat_template_kwargs", object)? {
        Json::Null => Map::new(),
        Json::Object(variables) => variables,
        _ => return Err(row.wrong("chat_template_kwargs", object)),
    };
    let list = "a list of tools, or a string that holds one as JSON";
    match parsed("tools", list)? {
        Json::Null => {}
        Json::Array(tools) if tools.is_empty() => {}
        Json::Array(tools) => {
            variables.insert("tools".into(), tools.into());
        }
        _ => return Err(row.wrong("tools", list)),
    }
    Ok(variables)
}

/// What a column says: a text, or turns of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Used as it is.
    Text(String),
    /// For the chat template; never empty.
    Messages(Vec<Message>),
}

impl Content {
    /// A column that is a string or a list of messages.
    pub(in crate::data) fn read(row: &Row, column: &str) -> Result<Self> {
        let items = match row.need(column)? {
            Json::String(text) => return Ok(Self::Text(text.clone())),
            Json::Array(items) => items,
            _ => return Err(row.wrong(column, "a string or a list of messages")),
        };
        Self::messages(row, column, items).map(Self::Messages)
    }

    fn messages(row: &Row, column: &str, items: &[Json]) -> Result<Vec<Message>> {
        if items.is_empty() {
            return Err(Error::input(format!("column `{column}` is an empty list"))
                .hint("a conversation has messages")
                .at(&row.place));
        }
        let message = |(index, item)| {
            let at = || format!("{}: column `{column}`", row.place);
            Message::from_json(item).map_err(|error| {
                let number = index + 1;
                error
                    .with_fact(|fact| format!("message {number} {fact}"))
                    .at(at())
            })
        };
        items.iter().enumerate().map(message).collect()
    }

    /// Whether it has nothing to learn: the text, or the last message.
    pub(in crate::data) fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Messages(messages) => messages.last().is_none_or(Message::is_blank),
        }
    }
}
