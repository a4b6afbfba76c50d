//! Converts values of public datasets into what a format reads.

use crate::data::format::messages::parsed;
use crate::data::rows::read::Row;
use serde_json::{Value as Json, json};

/// What is asked, and on the next line what it is asked of.
pub(super) fn instruction(row: &Row) -> Option<Json> {
    let asked = row.get("instruction")?;
    let about = row.get("input").or_else(|| row.get("context"));
    match (asked.as_str(), about.and_then(Json::as_str)) {
        (Some(asked), Some(about)) if !about.is_empty() => Some(format!("{asked}\n{about}").into()),
        // Not text: the reader reports it.
        (_, None) if about.is_some() => about.cloned(),
        _ => Some(asked.clone()),
    }
}

/// The same behind the turns before it, pairs of what the user and the assistant said.
pub(super) fn with_history(row: &Row) -> Option<Json> {
    let asked = instruction(row)?;
    let history = match row.get("history") {
        Some(Json::String(text)) if text.trim().is_empty() => return Some(asked),
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

/// A conversation without its last message.
pub(super) fn asked(row: &Row, column: &str) -> Option<Json> {
    let messages = match row.get(column)? {
        Json::String(text) => parsed(text)?,
        messages => messages.clone(),
    };
    let (_, asked) = messages.as_array()?.split_last()?;
    Some(asked.to_vec().into())
}

pub(super) fn number(row: &Row, column: &str) -> Option<f64> {
    let value = row.get(column)?;
    value
        .as_f64()
        .or_else(|| value.as_bool().map(f64::from))
        .or_else(|| value.as_str()?.trim().parse().ok())
}

// The winner by how much better the first answer is.
pub(super) fn sign(by: f64) -> Option<Json> {
    Some(match by {
        by if by > 0.0 => json!(1),
        by if by < 0.0 => json!(2),
        0.0 => json!("tie"),
        _ => return None,
    })
}

// The winner by its number from 0; another number is shown as it is.
pub(super) fn index(row: &Row, column: &str) -> Option<Json> {
    Some(json!(number(row, column)? + 1.0))
}

/// Turns in lists of texts, what the user says in `prompt`: the whole conversation where there are
/// several, or the one prompt and answer as texts.
pub(super) fn turns(row: &Row, answers: Option<&str>) -> Option<Json> {
    let list = |column: &str| match row.get(column)? {
        Json::String(text) => match parsed(text) {
            Some(Json::Array(items)) => Some(items),
            _ => Some(vec![json!(text)]),
        },
        Json::Array(items) => Some(items.clone()),
        _ => None,
    };
    let asked = list("prompt")?;
    let Some(column) = answers else {
        // Several turns are in the answers.
        return (asked.len() == 1).then(|| asked[0].clone());
    };
    let said = list(column)?;
    if asked.len() == 1 {
        return said.first().cloned();
    }
    let turn = |(asked, said): (&Json, &Json)| {
        [
            json!({"role": "user", "content": asked}),
            json!({"role": "assistant", "content": said}),
        ]
    };
    Some(asked.iter().zip(&said).flat_map(turn).collect())
}
