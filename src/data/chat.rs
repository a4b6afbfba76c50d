//! Conversations, and the chat template that turns them into text.
//!
//! Hides where a model keeps its template, the Jinja engine, made to do what `transformers` does with
//! it, and where that engine runs.
//!
//! *Why*: the template is the model's, not ours. What a model was trained on is what its own template
//! writes, exactly, so nothing of the conversation is put together here. A template that writes
//! today's date (`strftime_now`) writes another text tomorrow, and reference log-probs are then
//! computed again. What the engine cannot do fails with its line: Python's `%` between two variables, `encode`,
//! names that are not ASCII, and `random`, for a text must be the same each time.
//!
//! A template is also a program of somebody else. The engine bounds its steps, but not what a step
//! takes: `s ~ s` doubles a text, a list is nested a level deeper, a namespace holds itself, and there
//! is no hook by which each of its operators, filters and methods could be watched. So a program
//! renders [in a process of its own](render_in), whose allocator refuses more than a few hundred
//! megabytes, whose stack has an end, and which may die. What decides is the same on every machine:
//! steps, bytes written, held and allocated in all. The clock, of a minute, only ends what none of them
//! has ended; after any such end the template is not asked again.
//!
//! A library's user who starts no process gets the bounds on steps, on bytes written, on nesting in the
//! source and on time, and a stack of the same size, but none on the memory and the depth of values.

mod filters;
mod interpreter;
mod message;
mod methods;
mod process;
mod python;
mod refusal;
mod request;
mod source;
mod spans;
mod tags;
mod worker;

pub(in crate::data) use message::variables;
pub use message::{Content, Message};
pub use process::{Link, Meter, render_in, serve};
pub use request::{Conversation, Rendered, Rendering};

use crate::error::{Error, Result};
use crate::io::model_dir::{
    ADDITIONAL_TEMPLATES, CHAT_TEMPLATE, ModelFiles, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG,
};
use crate::io::untrusted::{self, Document};
use interpreter::Source;
use process::Host;
use refusal::Refusal;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A model's chat template.
pub struct ChatTemplate {
    host: Mutex<Host>,
    has_spans: bool,
    place: String,
}

impl ChatTemplate {
    /// As [`of`](Self::of), of the files that a model directory has now.
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
                        .hint("set data.chat_template = \"chatml\", \"plain\" or a file, give the directory a chat_template.jinja or \
                               its tokenizer_config.json a `chat_template`, or use rows of plain strings")
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
        let fits = untrusted::TEMPLATE.check(source.len());
        fits.map_err(|error| error.at(&place))?;
        let source = Source {
            text: source,
            special_tokens,
        };
        let started = Host::start(source).map_err(|refusal| refusal.at(&place));
        let (host, has_spans) = started?;
        Ok(Self {
            host: Mutex::new(host),
            has_spans,
            place,
        })
    }

    /// Whether it marks what the assistant says with `{% generation %}`.
    pub fn has_spans(&self) -> bool {
        self.has_spans
    }

    /// The texts of conversations, in the order of `renderings`, each of which may be refused for itself.
    ///
    /// # Errors
    /// Of a text if the template fails or refuses the conversation, with its own message and line, or
    /// writes more than it may. Of all if nothing more is to be had from the template: it took more
    /// steps, bytes or time than it may, or the system failed.
    pub fn render_all(
        &self,
        conversations: &[Conversation],
        renderings: &[Rendering],
    ) -> Result<Vec<Result<Rendered>>> {
        let place = |refusal: Refusal| refusal.at(&self.place);
        let request = request::request(conversations, renderings).map_err(place)?;
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = host.render(request).map_err(place)?;
        Ok(answers
            .into_iter()
            .map(|answer| answer.map_err(place))
            .collect())
    }

    /// The text of one conversation, with what the template writes in front of the assistant's answer
    /// behind it if `add_generation_prompt`.
    ///
    /// # Errors
    /// As of [`render_all`](Self::render_all).
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let variables = &Map::new();
        let conversation = Conversation {
            messages,
            variables,
        };
        let rendering = Rendering::new(0, messages.len(), add_generation_prompt);
        let texts = self.render_all(&[conversation], &[rendering])?;
        texts.into_iter().map(|text| Ok(text?.text)).collect()
    }
}

/// The templates that every model has, by name.
const BUILTIN: [(&str, &str); 2] = [
    ("chatml", include_str!("chat/builtin/chatml.jinja")),
    ("plain", include_str!("chat/builtin/plain.jinja")),
];

/// A template by its name: a file, or one of the model's own for special uses, or a built-in one.
///
/// # Errors
/// If there is none; with the names that there are.
pub(in crate::data) fn template_of(files: &ModelFiles, name: &str) -> Result<Document> {
    let path = Path::new(name);
    if path.is_file() || name.contains(['/', '\\']) || path.extension().is_some() {
        let file = Document::read(path, untrusted::TEMPLATE);
        file.bytes()?;
        return Ok(file);
    }
    let file = files.get(&format!("{ADDITIONAL_TEMPLATES}/{name}.jinja"));
    if file.exists() {
        return Ok(file);
    }
    let config = files.get(TOKENIZER_CONFIG);
    let config = config.optional_json_object()?.unwrap_or_default();
    let named: Vec<(&str, &str)> = match &config["chat_template"] {
        Json::Array(named) => named
            .iter()
            .filter_map(|entry| Some((entry["name"].as_str()?, entry["template"].as_str()?)))
            .collect(),
        _ => Vec::new(),
    };
    let all = || named.iter().copied().chain(BUILTIN);
    match all().find(|(known, _)| *known == name) {
        Some((_, text)) => {
            let path = files.directory().join(format!("chat template {name}"));
            Ok(Document::of(&path, untrusted::TEMPLATE, text.into()))
        }
        None => {
            let names: Vec<&str> = all().map(|(name, _)| name).collect();
            let names = refusal::printable(&names.join(", "));
            Err(Error::input(format!("there is no chat template {name:?}"))
                .hint(format!("it is a file, FILE.jinja, or one of: {names}")))
        }
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
            let names = refusal::printable(&names.join(", "));
            Err(Error::input("no template is named \"default\"")
                .hint(format!("there are only: {names}")))
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
