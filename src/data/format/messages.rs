//! Conversations as other programs write them, made lists of messages with `role` and `content`.
//!
//! Hides ShareGPT's `from` and `value`, the names that roles go by, contents in parts, lists that stand
//! in a string, and a message without its list.
//!
//! *Why*: all of them say the same. What is a message already is left unchanged.

use serde_json::{Map, Value as Json};
use std::borrow::Cow;

/// The value of a column, with its messages in the common form; what holds none is left as it is.
pub(super) fn common(value: &Json) -> Cow<'_, Json> {
    match value {
        Json::Array(items) if items.iter().any(differs) => {
            Cow::Owned(items.iter().map(message).collect())
        }
        Json::Array(items) if is_turns(items) => Cow::Owned(turns(items)),
        Json::Object(fields) if speaker(fields).is_some() => {
            Cow::Owned(Json::Array(vec![message(value)]))
        }
        Json::String(text) => match parsed(text) {
            Some(list) if is_conversation(&list) => Cow::Owned(common(&list).into_owned()),
            _ => Cow::Borrowed(value),
        },
        _ => Cow::Borrowed(value),
    }
}

/// A list or an object that stands in a string, as JSON or as Python writes it.
pub(super) fn parsed(text: &str) -> Option<Json> {
    let text = text.trim();
    let is_nested = (text.starts_with('[') && text.ends_with(']'))
        || (text.starts_with('{') && text.ends_with('}'));
    if !is_nested {
        return None;
    }
    crate::io::untrusted::parse(text)
        .ok()
        .or_else(|| python(text))
}

fn is_conversation(value: &Json) -> bool {
    let is_message = |item: &Json| {
        item.as_object()
            .is_some_and(|fields| speaker(fields).is_some() && said(fields).is_some())
    };
    match value {
        Json::Array(items) => !items.is_empty() && items.iter().all(is_message),
        value => is_message(value),
    }
}

/// Who speaks, where the object is a message.
fn speaker(fields: &Map<String, Json>) -> Option<&str> {
    let role = fields.get("role").or_else(|| fields.get("from"))?;
    role.as_str()
}

fn said(fields: &Map<String, Json>) -> Option<&Json> {
    fields.get("content").or_else(|| fields.get("value"))
}

fn role(name: &str) -> &str {
    match name.to_ascii_lowercase().as_str() {
        "system" => "system",
        "user" | "human" | "prompter" => "user",
        "assistant" | "gpt" | "bot" | "model" | "chatgpt" | "bing" | "bard" | "claude"
        | "chatbot" => "assistant",
        "tool" | "function" | "function_response" | "observation" | "ipython" | "tool_response" => {
            "tool"
        }
        _ => name,
    }
}

// Whether a message is written in another way than the common one.
fn differs(item: &Json) -> bool {
    let Some(fields) = item.as_object() else {
        return false;
    };
    let Some(name) = speaker(fields) else {
        return false;
    };
    let has_parts = fields
        .get("content")
        .is_some_and(|content| texts(content).is_some());
    !fields.contains_key("role") || role(name) != name || has_parts
}

fn message(item: &Json) -> Json {
    let (Some(fields), true) = (item.as_object(), differs(item)) else {
        return item.clone();
    };
    let mut fields = fields.clone();
    for (other, name) in [("from", "role"), ("value", "content")] {
        if !fields.contains_key(name)
            && let Some(value) = fields.remove(other)
        {
            fields.insert(name.to_owned(), value);
        }
    }
    if let Some(Json::String(name)) = fields.get_mut("role") {
        *name = role(name).to_owned();
    }
    if let Some(content) = fields.get_mut("content")
        && let Some(text) = texts(content)
    {
        *content = Json::String(text);
    }
    Json::Object(fields)
}

// The text of parts that are all text, one behind the other as templates write them.
fn texts(content: &Json) -> Option<String> {
    let parts = content.as_array().filter(|parts| !parts.is_empty())?;
    let text = |part: &Json| match part {
        Json::String(text) => Some(text.clone()),
        part => match part.get("type")?.as_str()? {
            "text" => Some(part.get("text")?.as_str()?.to_owned()),
            _ => None,
        },
    };
    parts.iter().map(text).collect()
}

// Turns as pairs of what the user and the assistant say.
fn is_turns(items: &[Json]) -> bool {
    let is_turn = |item: &Json| item.get("input").is_some() && item.get("output").is_some();
    !items.is_empty() && items.iter().all(is_turn)
}

fn turns(items: &[Json]) -> Json {
    let said = |role: &str, content: &Json| serde_json::json!({"role": role, "content": content});
    let turn = |item: &Json| {
        [
            said("user", &item["input"]),
            said("assistant", &item["output"]),
        ]
    };
    items.iter().flat_map(turn).collect()
}

/// A literal of Python made of lists, dictionaries, strings, numbers, `None`, `True` and `False`. NumPy
/// writes lists without commas between the items.
fn python(text: &str) -> Option<Json> {
    let mut rest = Python { text, depth: 0 };
    let value = rest.value()?;
    rest.text.trim_start().is_empty().then_some(value)
}

struct Python<'a> {
    text: &'a str,
    depth: usize,
}

impl Python<'_> {
    fn skip(&mut self) {
        self.text = self.text.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip();
        match self.text.strip_prefix(token) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self) -> Option<Json> {
        self.skip();
        match self.text.chars().next()? {
            '[' => self.nested("[", "]", Self::list),
            '{' => self.nested("{", "}", Self::object),
            '\'' | '"' => self.string().map(Json::String),
            _ => self.word(),
        }
    }

    fn nested(
        &mut self,
        open: &str,
        close: &str,
        read: fn(&mut Self, &str) -> Option<Json>,
    ) -> Option<Json> {
        self.depth += 1;
        let value = (self.depth < 64 && self.eat(open))
            .then(|| read(self, close))
            .flatten();
        self.depth -= 1;
        value
    }

    fn list(&mut self, close: &str) -> Option<Json> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.value()?);
            self.eat(",");
        }
        Some(Json::Array(items))
    }

    fn object(&mut self, close: &str) -> Option<Json> {
        let mut fields = Map::new();
        while !self.eat(close) {
            self.skip();
            let key = self.string()?;
            if !self.eat(":") {
                return None;
            }
            fields.insert(key, self.value()?);
            if !self.eat(",") && !self.text.trim_start().starts_with(close) {
                return None;
            }
        }
        Some(Json::Object(fields))
    }

    fn word(&mut self) -> Option<Json> {
        let end = self
            .text
            .find(|c: char| !(c.is_alphanumeric() || "+-._".contains(c)))
            .unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        match word {
            "None" | "nan" => Some(Json::Null),
            "True" => Some(Json::Bool(true)),
            "False" => Some(Json::Bool(false)),
            number => number.parse().ok().map(Json::Number),
        }
    }

    fn string(&mut self) -> Option<String> {
        let quote = self
            .text
            .chars()
            .next()
            .filter(|c| matches!(c, '\'' | '"'))?;
        let mut text = String::new();
        let mut chars = self.text[1..].char_indices();
        while let Some((at, letter)) = chars.next() {
            if letter == quote {
                self.text = &self.text[1 + at + 1..];
                return Some(text);
            }
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            let mut code = |digits: usize| {
                let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                let number = u32::from_str_radix(&hex, 16).ok()?;
                char::from_u32(number).filter(|_| hex.len() == digits)
            };
            match self.text[1 + at + 1..].chars().next()? {
                'x' => {
                    code(1);
                    text.push(code(2)?);
                }
                'u' => {
                    code(1);
                    text.push(code(4)?);
                }
                'U' => {
                    code(1);
                    text.push(code(8)?);
                }
                escaped => {
                    chars.next();
                    match escaped {
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        '\\' | '\'' | '"' => text.push(escaped),
                        '\n' => {}
                        other => text.extend(['\\', other]),
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conversations_of_other_programs_are_lists_of_messages() {
        let list = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        for other in [
            json!([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]),
            json!([{"role": "human", "content": "a"}, {"role": "bot", "content": "b"}]),
            json!([{"input": "a", "output": "b"}]),
            json!(list.to_string()),
            json!("[{'role': 'user', 'content': 'a'} {'role': 'assistant', 'content': 'b'}]"),
            json!([
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": "b"},
            ]),
        ] {
            assert_eq!(*common(&other), list, "{other}");
        }
        assert!(matches!(common(&list), Cow::Borrowed(_)));
        let one = json!({"from": "gpt", "value": "b", "weight": 1});
        assert_eq!(
            *common(&one),
            json!([{"role": "assistant", "content": "b", "weight": 1}])
        );
    }

    #[test]
    fn what_is_no_conversation_is_left_alone() {
        for value in [
            json!("[1] is a footnote"),
            json!("[{'a': 1}]"),
            json!("{}"),
            json!(["a", "b"]),
            json!([]),
            json!([{"role": "user", "content": [{"type": "image", "url": "x"}]}]),
            json!({"a": 1}),
            json!(3),
        ] {
            assert_eq!(*common(&value), value);
        }
    }

    #[test]
    fn literals_of_python_are_read() {
        for (text, value) in [
            (
                r#"["it's", 'a "b"', None, True, -1.5]"#,
                json!(["it's", "a \"b\"", null, true, -1.5]),
            ),
            (
                r"['\x41\u00e9\U0001F600\n\\\q']",
                json!(["A\u{e9}\u{1f600}\n\\\\q"]),
            ),
            ("{'a': [1, 2,], 'b': {}}", json!({"a": [1, 2], "b": {}})),
        ] {
            assert_eq!(parsed(text), Some(value), "{text}");
        }
        let deep = format!("{}None{}", "[".repeat(100), "]".repeat(100));
        for text in [
            "['a",
            "['a']]",
            "{'a'}",
            "{'a': 1 'b': 2}",
            "[a]",
            "[1, 2",
            deep.as_str(),
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
