//! Conversations, and the chat template that turns them into text.
//!
//! Hides where a model keeps its template, and the Jinja engine, made to do what `transformers` does
//! with it: its filters and functions, Python's string methods, `{% generation %}`.
//!
//! *Why*: the template is the model's, not ours. What a model was trained on is what its own template
//! writes, to the letter, so nothing of the conversation is put together here. A template that writes
//! today's date (`strftime_now`) writes another text tomorrow, and reference log-probs are then
//! computed again. The engine does not know Python's `%` between texts; a template that uses it fails
//! with its line.

mod python;

use crate::data::rows::read::Row;
use crate::error::{Error, Result, nearest};
use crate::io::model_dir::{CHAT_TEMPLATE, ModelFiles, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG};
use crate::io::untrusted;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::path::Path;

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
const MESSAGE: &str = "a message is {\"role\": ..., \"content\": ...}";

/// A turn of a conversation: an object with `role` and `content`, and what else a template reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

    /// What it says, where that is a text.
    pub fn text(&self) -> Option<&str> {
        self.0.get("content").and_then(Json::as_str)
    }

    /// Whether it says nothing: no tool is called, and the content is empty or only white space.
    pub fn is_blank(&self) -> bool {
        let content = self.text().unwrap_or_default();
        content.trim().is_empty() && !self.0.contains_key("tool_calls")
    }

    fn role(&self) -> &str {
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
            Some(_) => return Err(Error::input("has a `role` that is no string").hint(MESSAGE)),
            None => return Err(Error::input("has no `role`").hint(MESSAGE)),
        };
        if !ROLES.contains(&role.as_str()) {
            return Err(Error::input(format!("has the role {role:?}")).hint(nearest(role, ROLES)));
        }
        match fields.get("content") {
            Some(Json::String(_)) => {}
            None if fields.contains_key("tool_calls") => {}
            None => return Err(Error::input("has no `content`").hint(MESSAGE)),
            Some(Json::Array(_)) => {
                return Err(Error::input("has a list as `content`")
                    .hint("contents are text; images and other parts are not supported"));
            }
            Some(_) => return Err(Error::input("has a `content` that is no string").hint(MESSAGE)),
        }
        name_reasoning(&mut fields);
        Ok(Self(fields))
    }
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
    pub(super) fn read(row: &Row, column: &str) -> Result<Self> {
        let items = match row.need(column)? {
            Json::String(text) => return Ok(Self::Text(text.clone())),
            Json::Array(items) => items,
            _ => return Err(row.wrong(column, "a string or a list of messages")),
        };
        Self::messages(row, column, items).map(Self::Messages)
    }

    fn messages(row: &Row, column: &str, items: &[Json]) -> Result<Vec<Message>> {
        // A template writes tools in front of the conversation: without them it is another text.
        if let Some(tools) = row
            .get("tools")
            .filter(|tools| **tools != Json::Array(Vec::new()))
        {
            let count = tools.as_array().map_or(1, Vec::len);
            return Err(Error::input(format!("column `tools` names {count} tools"))
                .hint("conversations with tools are not supported")
                .at(&row.place));
        }
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
    pub(super) fn is_blank(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Messages(messages) => messages.last().is_none_or(Message::is_blank),
        }
    }
}

/// A model's chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    place: String,
    special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// As [`of`](Self::of), of the files that a model folder has now.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::of(&ModelFiles::open(folder)?)
    }

    /// Parses the template of a model: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json`.
    pub fn of(files: &ModelFiles) -> Result<Self> {
        let config_file = files.get(TOKENIZER_CONFIG);
        let config = config_file.optional_json_object()?.unwrap_or_default();
        let file = files.get(CHAT_TEMPLATE);
        let (place, source) = match file.exists() {
            false => {
                let place = format!("{}: chat_template", config_file.path().display());
                let source = in_config(&config["chat_template"]).map_err(|e| e.at(&place))?;
                let source = source.ok_or_else(|| {
                    Error::input("the model has no chat template")
                        .hint("give its folder a chat_template.jinja, or its tokenizer_config.json a `chat_template`, or use rows of plain strings")
                        .at(files.directory().display())
                })?;
                (place, source)
            }
            true => (file.path().display().to_string(), file.text()?),
        };
        let legacy = files.get(SPECIAL_TOKENS_MAP);
        let legacy = legacy.optional_json_object()?.unwrap_or_default();
        Self::new(source, place, special_tokens(&[config, legacy]))
    }

    /// A template from its text; `place` is where errors say that it stands.
    pub fn new(
        source: String,
        place: String,
        special_tokens: BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| Error::failed(error.to_string()))?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", python::to_json);
        environment.add_function("strftime_now", python::strftime_now);
        environment.add_function("raise_exception", raise_exception);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEEPEST);
        let fits = untrusted::TEMPLATE.check(source.len());
        fits.map_err(|error| error.at(&place))?;
        untrusted::guarded(&place, || {
            let parsed = environment.add_template_owned(NAME, without_generation_tags(&source));
            parsed.map_err(|error| explain(&error, &place).hint("templates are Jinja"))
        })?;
        Ok(Self {
            environment,
            place,
            special_tokens,
        })
    }

    /// The text of a conversation, with what the template writes in front of the assistant's answer
    /// behind it if `add_generation_prompt`.
    ///
    /// # Errors
    /// If the template fails or refuses the conversation; with its own message and line.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let special = self.special_tokens.iter();
        let mut variables: BTreeMap<&str, Value> = special
            .map(|(name, token)| (name.as_str(), token.as_str().into()))
            .collect();
        variables.insert("messages", Serde(messages).into());
        variables.insert("add_generation_prompt", add_generation_prompt.into());
        // What transformers passes where there are none.
        variables.insert("tools", ().into());
        variables.insert("documents", ().into());
        let mut text = Bounded::default();
        let template = self.environment.get_template(NAME);
        let rendered = untrusted::guarded(&self.place, || {
            template
                .and_then(|template| {
                    let done = template.render_captured_to(Value::from(variables), &mut text);
                    done.map(drop)
                })
                .map_err(|error| explain(&error, &self.place))
        });
        if text.full {
            return Err(Error::input("the chat template writes more than 128 MiB").at(&self.place));
        }
        rendered?;
        String::from_utf8(text.bytes)
            .map_err(|_| Error::input("the chat template cuts a letter").at(&self.place))
    }
}

const NAME: &str = "chat";

/// The steps that one conversation may take; those of real templates are some hundreds per message.
const FUEL: u64 = 20_000_000;

/// Macros inside macros.
const DEEPEST: usize = 100;

/// The bytes that a template may write: twice what a row may have.
const LONGEST_TEXT: usize = 2 * untrusted::LONGEST_LINE;

/// What a template has written.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > LONGEST_TEXT {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `raise_exception` says, apart from the engine's own errors.
#[derive(Debug)]
struct Raised;

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("raise_exception")
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
}

fn explain(error: &minijinja::Error, place: &str) -> Error {
    let kind = error.kind();
    let detail = error
        .detail()
        .map(|detail| format!(": {detail}"))
        .unwrap_or_default();
    let what = if error.source().is_some_and(|source| source.is::<Raised>()) {
        format!("the chat template refuses the messages{detail}")
    } else if kind == ErrorKind::SyntaxError {
        format!("the chat template does not parse{detail}")
    } else if kind == ErrorKind::OutOfFuel {
        "the chat template does not come to an end".to_owned()
    } else {
        format!("the chat template fails: {kind}{detail}")
    };
    let what = what.replace('\n', " ");
    match error.line() {
        Some(line) => Error::input(what).at(format!("{place}:{line}")),
        None => Error::input(what).at(place),
    }
}

fn in_config(value: &Json) -> Result<Option<String>> {
    let named = match value {
        Json::Null => return Ok(None),
        Json::String(source) => return Ok(Some(source.clone())),
        Json::Array(named) => named,
        _ => {
            return Err(Error::input("is neither a template nor a list of them")
                .hint("it is a string, or a list of {\"name\", \"template\"}"));
        }
    };
    let default = named.iter().find(|entry| entry["name"] == "default");
    match default.and_then(|entry| entry["template"].as_str()) {
        Some(source) => Ok(Some(source.to_owned())),
        None => {
            let names: Vec<String> = named.iter().map(|e| e["name"].to_string()).collect();
            Err(Error::input("no template is named \"default\"")
                .hint(format!("there are only: {}", names.join(", "))))
        }
    }
}

/// The tokens that a template may name, from the first file that has each.
fn special_tokens(configs: &[Json]) -> BTreeMap<String, String> {
    let names = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];
    let token = |name: &str| {
        let mut values = configs.iter().map(|config| &config[name]);
        values.find_map(|value| value.as_str().or_else(|| value["content"].as_str()))
    };
    names
        .iter()
        .map(|name| format!("{name}_token"))
        .filter_map(|name| Some((name.clone(), token(&name)?.to_owned())))
        .collect()
}

/// `{% generation %}` marks what an assistant says and writes nothing itself. The engine does not
/// know the tag; `with` is a block that does nothing else either, and keeps names to itself.
fn without_generation_tags(source: &str) -> String {
    let mut parts = source.split("{%");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += "{%";
        let sign = usize::from(part.starts_with(['-', '+']));
        let word = part[sign..].trim_start();
        let tags = [("generation", "with"), ("endgeneration", "endwith")];
        let renamed = tags.iter().find_map(|(own, known)| {
            let rest = word.strip_prefix(own)?;
            let end = rest.trim_start().trim_start_matches(['-', '+']);
            end.starts_with("%}")
                .then(|| format!("{} {known}{rest}", &part[..sign]))
        });
        text += renamed.as_deref().unwrap_or(part);
    }
    text
}
