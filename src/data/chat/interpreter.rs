//! The Jinja engine, made to do what `transformers` does with it: its filters and functions, Python's
//! string methods, `{% generation %}`.

use super::refusal::{ENDLESS, Refusal, printable};
use super::request::{Answers, Arrived, Rendered, Request};
use super::source::{SPAN, translate};
use super::spans::Marks;
use super::{filters, methods, python};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;

/// What a template consists of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Source {
    pub text: String,
    /// By the names of the variables that hold them.
    pub special_tokens: BTreeMap<String, String>,
}

/// The steps that one conversation may take; those of real templates are some hundreds per message.
const FUEL: u64 = 20_000_000;

/// Macros inside macros.
const DEEPEST: usize = 100;

/// The bytes that a template may write whatever its messages. Tokenizing them takes some hundred times
/// that.
const SHORT_TEXT: usize = 256 << 10;

const NAME: &str = "chat";

/// A template that was parsed.
pub(super) struct Interpreter {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
    source: String,
    marks: Marks,
    /// Whether it marks what the assistant says.
    pub has_spans: bool,
}

impl Interpreter {
    pub fn new(source: Source) -> Result<Self, Refusal> {
        let translated = translate(&source.text)?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(Refusal::failed)?);
        environment.set_unknown_method_callback(methods::call);
        filters::add_to(&mut environment);
        let marks = Marks::default();
        environment.add_filter(SPAN, marks.filter());
        environment.add_filter("tojson", python::to_json);
        environment.add_function("strftime_now", python::strftime_now);
        environment.add_function("raise_exception", raise_exception);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEEPEST);
        let parsed = environment.add_template_owned(NAME, translated.text.clone());
        parsed.map_err(|error| explain(&error).hint("templates are Jinja"))?;
        Ok(Self {
            environment,
            special_tokens: source.special_tokens,
            source: translated.text,
            marks,
            has_spans: translated.has_spans,
        })
    }

    /// The texts of a [`request`](super::request::request).
    pub fn render(&self, request: &[u8]) -> Result<Answers, Refusal> {
        let asked: Request = postcard::from_bytes(request).map_err(Refusal::failed)?;
        if self.has_spans {
            let texts = asked.conversations.iter().map(Vec::as_slice);
            self.marks.choose(texts.chain([self.source.as_bytes()]))?;
        }
        let arrive = |json: &Vec<u8>| {
            let arrived: Arrived = serde_json::from_slice(json)?;
            let messages = arrived.messages.iter().map(|message| Serde(message).into());
            let mut variables = self.variables();
            let own = arrived.variables.iter();
            variables.extend(own.map(|(name, value)| (name.clone(), Serde(value).into())));
            Ok((messages.collect(), variables))
        };
        let conversations: Vec<(Vec<Value>, BTreeMap<String, Value>)> = asked
            .conversations
            .iter()
            .map(arrive)
            .collect::<serde_json::Result<_>>()
            .map_err(Refusal::failed)?;
        let one = |rendering: &super::Rendering| {
            let (messages, variables) = &conversations[rendering.conversation];
            let mut variables = variables.clone();
            let messages = messages[..rendering.messages].to_vec();
            variables.insert("messages".into(), messages.into());
            let prompt = rendering.add_generation_prompt;
            variables.insert("add_generation_prompt".into(), prompt.into());
            let length = asked.conversations[rendering.conversation].len();
            self.text(variables, length).map(|text| self.rendered(text))
        };
        Ok(asked.renderings.iter().map(one).collect())
    }

    /// What every conversation has.
    fn variables(&self) -> BTreeMap<String, Value> {
        let special = self.special_tokens.iter();
        let special = special.map(|(name, token)| (name.clone(), token.as_str().into()));
        // What transformers passes where there are none.
        let none = ["tools", "documents"].map(|name| (name.to_owned(), ().into()));
        special.chain(none).collect()
    }

    fn text(&self, variables: BTreeMap<String, Value>, length: usize) -> Result<String, Refusal> {
        let mut text = Bounded::for_input(self.source.len(), length);
        let template = self.environment.get_template(NAME);
        let rendered = template.and_then(|template| {
            let done = template.render_captured_to(Value::from(variables), &mut text);
            done.map(drop)
        });
        if text.full {
            let most = text.most >> 10;
            let what = format!("the chat template writes more than {most} KiB");
            return Err(Refusal::new(what).hint("a text is about as long as its messages"));
        }
        rendered.map_err(|error| explain(&error))?;
        String::from_utf8(text.bytes).map_err(|_| Refusal::new("the chat template cuts a letter"))
    }

    fn rendered(&self, text: String) -> Rendered {
        match self.has_spans {
            true => self.marks.take(&text),
            false => Rendered {
                text,
                spans: Vec::new(),
            },
        }
    }
}

/// What a template has written.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
    full: bool,
}

impl Bounded {
    /// A text is about as long as its messages and the template: some escapes, a message that is
    /// written twice. Memory is taken as the text grows.
    fn for_input(source: usize, messages: usize) -> Self {
        Self {
            bytes: Vec::new(),
            most: SHORT_TEXT + source + 16 * messages,
            full: false,
        }
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
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

fn raise_exception(message: Cow<str>) -> Result<Value, minijinja::Error> {
    let message = printable(&message);
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
}

fn explain(error: &minijinja::Error) -> Refusal {
    let kind = error.kind();
    let detail = error
        .detail()
        .map(|detail| format!(": {}", printable(detail)))
        .unwrap_or_default();
    let what = if error.source().is_some_and(|source| source.is::<Raised>()) {
        format!("the chat template refuses the messages{detail}")
    } else if kind == ErrorKind::SyntaxError {
        format!("the chat template does not parse{detail}")
    } else if kind == ErrorKind::OutOfFuel {
        ENDLESS.to_owned()
    } else {
        format!("the chat template fails: {kind}{detail}")
    };
    Refusal::new(what).line(error.line())
}
