//! The Jinja engine, made to do what `transformers` does with it: its filters and functions, Python's
//! string methods, `{% generation %}`.

use super::message::Message;
use super::python;
use super::refusal::{ENDLESS, Refusal, printable};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
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

/// What is asked of a template.
#[derive(Serialize, Deserialize)]
struct Request<M> {
    messages: M,
    add_generation_prompt: bool,
}

/// A conversation as [`Interpreter::render`] takes it.
pub(super) fn request(messages: &[Message], add_generation_prompt: bool) -> Vec<u8> {
    let request = Request {
        messages,
        add_generation_prompt,
    };
    serde_json::to_vec(&request).unwrap_or_default()
}

/// The steps that one conversation may take; those of real templates are some hundreds per message.
const FUEL: u64 = 20_000_000;

/// Macros inside macros.
const DEEPEST: usize = 100;

/// The letters of one tag outside its texts. Each may be an operator, and each operator nests the
/// expression, which the engine parses, compiles and drops recursively. Real templates have some
/// hundreds.
const LONGEST_TAG: usize = 16 << 10;

/// `elif`s, each of which nests as well.
const MOST_ELIFS: usize = 1000;

/// The bytes that a template may write whatever its messages. Tokenizing them takes some hundred times
/// that.
const SHORT_TEXT: usize = 256 << 10;

const NAME: &str = "chat";

/// A template that was parsed.
pub(super) struct Interpreter {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
    source_bytes: usize,
}

impl Interpreter {
    pub fn new(source: Source) -> Result<Self, Refusal> {
        check_tags(&source.text)?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(Refusal::failed)?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", python::to_json);
        environment.add_function("strftime_now", python::strftime_now);
        environment.add_function("raise_exception", raise_exception);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEEPEST);
        let parsed = environment.add_template_owned(NAME, without_generation_tags(&source.text));
        parsed.map_err(|error| explain(&error).hint("templates are Jinja"))?;
        Ok(Self {
            environment,
            special_tokens: source.special_tokens,
            source_bytes: source.text.len(),
        })
    }

    /// The text of a [`request`].
    pub fn render(&self, request: &[u8]) -> Result<String, Refusal> {
        let asked: Request<Vec<Message>> =
            serde_json::from_slice(request).map_err(Refusal::failed)?;
        let special = self.special_tokens.iter();
        let mut variables: BTreeMap<&str, Value> = special
            .map(|(name, token)| (name.as_str(), token.as_str().into()))
            .collect();
        variables.insert("messages", Serde(&asked.messages).into());
        variables.insert("add_generation_prompt", asked.add_generation_prompt.into());
        // What transformers passes where there are none.
        variables.insert("tools", ().into());
        variables.insert("documents", ().into());
        let mut text = Bounded::for_input(self.source_bytes, request.len());
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

/// Refuses expressions and branches that would nest too deep for the engine's parser.
fn check_tags(source: &str) -> Result<(), Refusal> {
    let refuse = |at: usize, what: String| {
        let line = source[..at].matches('\n').count() + 1;
        Err(Refusal::new(what).line(Some(line)))
    };
    let mut elifs = 0;
    let mut from = 0;
    while let Some(open) = source[from..].find('{') {
        let open = from + open;
        let rest = &source[open + 1..];
        from = open + 1;
        let close = match rest.as_bytes().first() {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => {
                from += rest.find("#}").unwrap_or(rest.len());
                continue;
            }
            _ => continue,
        };
        let tag = &rest[1..];
        let word = tag.trim_start_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        elifs += usize::from(word.starts_with("elif"));
        if elifs > MOST_ELIFS {
            return refuse(
                open,
                format!("the chat template has more than {MOST_ELIFS} `elif`s"),
            );
        }
        let (length, own) = measure(tag, close);
        if own > LONGEST_TAG {
            let most = LONGEST_TAG >> 10;
            return refuse(
                open,
                format!("the chat template has a tag of more than {most} KiB"),
            );
        }
        from += 1 + length;
    }
    Ok(())
}

/// The bytes up to `close`, with and without those in quotes.
fn measure(tag: &str, close: &str) -> (usize, usize) {
    let (mut own, mut quote, mut escaped) = (0, None, false);
    for (at, letter) in tag.bytes().enumerate() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if letter == b'\\' => escaped = true,
            Some(end) if letter == end => quote = None,
            Some(_) => {}
            None if tag.as_bytes()[at..].starts_with(close.as_bytes()) => return (at, own),
            None => {
                own += 1;
                quote = matches!(letter, b'"' | b'\'').then_some(letter);
            }
        }
    }
    (tag.len(), own)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_measured_without_their_texts_and_comments() {
        let tag = |letters: &str| format!("{{{{ {letters} }}}}");
        let text = "x".repeat(LONGEST_TAG);
        for fine in [
            format!("{text}{text}"),
            format!("{{# {text}{text} #}}{{{{ a }}}}"),
            tag(&format!("'{text}\\'{text}' ~ \"{text}{text}\"")),
            format!("{}{}", tag(&text[20..]), tag(&text[20..])),
            "{ é { % {".to_owned(),
            "{% elif a %}".repeat(MOST_ELIFS),
        ] {
            assert_eq!(check_tags(&fine), Ok(()));
        }
        for (long, line) in [
            (tag(&text), 1),
            (format!("\n{{% if {text} %}}"), 2),
            (format!("\n\n{{{{ 'a' {text}"), 3),
        ] {
            let refusal = check_tags(&long).unwrap_err().at("t").to_string();
            let expected = format!("t:{line}: the chat template has a tag of more than 16 KiB");
            assert_eq!(refusal, expected);
        }
        let branches = "{%- elif a %}".repeat(MOST_ELIFS + 1);
        assert!(check_tags(&branches).is_err());
    }
}
