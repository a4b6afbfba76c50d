//! The grammar's file: TOML to a chain of slots, names to numbers.
//!
//! Hides the file format and its checks; the comments of `configs/quickstart/grammar.toml` explain
//! it to users.
//!
//! *Why*: templates in plain text, options below them: whoever can read a story can edit the
//! grammar. Names are resolved here once, with the key in the message where that fails.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::check::check;
use super::grammar::{Choice, Grammar, Slot};
use super::template::{Part, Template, Value, Variable, parts};
use crate::error::{Error, Result, nearest};
use crate::io::untrusted;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prompt: String,
    continuation: String,
    slot: BTreeMap<String, Vec<Opt>>,
}

/// An option: a table, or a bare text.
struct Opt(Fields);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    text: String,
    weight: Option<f64>,
    score: Option<f64>,
    #[serde(default)]
    when: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    set: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Opt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Opt;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a text or a table { text = \"...\", ... }")
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<Opt, E> {
                Ok(Opt(Fields {
                    text: text.to_owned(),
                    ..Fields::default()
                }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Opt, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map)).map(Opt)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Grammar {
    /// Reads a grammar file; what it says must be unambiguous.
    pub fn open(path: &Path) -> Result<Self> {
        let text = untrusted::text(path, untrusted::TOML)?;
        Self::parse(&text).map_err(|error| error.at(path.display()))
    }

    /// As [`open`](Self::open), from the file's text.
    pub fn parse(text: &str) -> Result<Self> {
        let grammar = compile(text)?;
        check(&grammar)?;
        Ok(grammar)
    }
}

/// The grammar that a file describes, names resolved, not yet checked for ambiguity.
fn compile(text: &str) -> Result<Grammar> {
    let file: File = toml::from_str(text).map_err(|error| in_file(&error, text))?;
    let mut compiler = Compiler {
        file: &file,
        slots: Vec::new(),
        names: Vec::new(),
        values: Vec::new(),
        numbers: HashMap::new(),
    };
    let prompt = compiler.part(&file.prompt, true);
    let prompt = prompt.map_err(|error| error.at("prompt"))?;
    let prompt_slots = compiler.slots.len();
    let continuation = compiler.part(&file.continuation, false);
    let continuation = continuation.map_err(|error| error.at("continuation"))?;
    let placed: BTreeSet<&str> = compiler.slots.iter().map(|s| s.name.as_str()).collect();
    if let Some(unused) = file
        .slot
        .keys()
        .find(|name| !placed.contains(name.as_str()))
    {
        return Err(Error::input("the slot is in no template")
            .hint(format!("write {{{unused}}} in `prompt` or `continuation`"))
            .at(format!("slot.{unused}")));
    }
    Ok(Grammar {
        heads: [prompt, continuation],
        prompt_slots,
        slots: compiler.slots,
        variables: compiler.names.into_iter().map(|name| name.name).collect(),
        values: compiler.values,
    })
}

fn in_file(error: &toml::de::Error, text: &str) -> Error {
    let message = error.message().trim();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let what = match quoted.split_first() {
        Some((key, valid)) if message.starts_with("unknown field") => {
            Error::input(format!("unknown key `{key}`")).hint(nearest(key, valid.iter().copied()))
        }
        _ => Error::input(message.replace('\n', "; ")),
    };
    match error.span() {
        Some(span) if span.start > 0 || !message.starts_with("missing field") => {
            let line = text[..span.start].matches('\n').count() + 1;
            what.at_line(line)
        }
        _ => what,
    }
}

struct Compiler<'a> {
    file: &'a File,
    slots: Vec<Slot>,
    names: Vec<Name>,
    values: Vec<String>,
    /// Where each of them is.
    numbers: HashMap<String, Value>,
}

/// A variable while it is compiled.
struct Name {
    name: String,
    possible: BTreeSet<Value>,
    /// Whether its values are texts without placeholders, which can be repeated.
    plain: bool,
}

impl<'a> Compiler<'a> {
    /// Compiles a template's slots; what comes before the first is returned.
    fn part(&mut self, text: &'a str, is_prompt: bool) -> Result<Template> {
        let first = self.slots.len();
        let file = self.file;
        let mut pieces = vec![Template::default()];
        for part in parts(text)? {
            let slot = match part {
                Part::Placeholder(name) if self.find(name).is_none() => {
                    file.slot.get_key_value(name)
                }
                _ => None,
            };
            match (slot, pieces.last_mut()) {
                (Some((name, options)), _) => {
                    self.slot(name, options, is_prompt)?;
                    pieces.push(Template::default());
                }
                (None, Some(piece)) => self.push(piece, &part)?,
                (None, None) => {}
            }
        }
        let mut pieces = pieces.into_iter();
        let head = pieces.next().unwrap_or_default();
        for (slot, following) in self.slots[first..].iter_mut().zip(pieces) {
            for option in &mut slot.options {
                option.text.append(&following);
            }
        }
        Ok(head)
    }

    fn slot(&mut self, name: &str, options: &'a [Opt], is_prompt: bool) -> Result<()> {
        let place = format!("slot.{name}");
        let Some(Opt(first)) = options.first() else {
            let error = Error::input("no options").hint("give at least one text");
            return Err(error.at(place));
        };
        let option_at = |index: usize| format!("{place}[{index}]");
        let numbered = || options.iter().map(|Opt(option)| option).enumerate();
        // Conditions read what came before, so they are resolved before the slot's own names.
        let mut conditions = Vec::new();
        for (index, option) in numbered() {
            let when = self.conditions(option);
            conditions.push(when.map_err(|error| error.at(option_at(index)))?);
        }
        for variable in first.set.keys() {
            let fresh = self.check_new(variable);
            fresh.map_err(|error| error.at("set").at(option_at(0)))?;
            self.declare(variable, true);
        }
        let mut choices = Vec::new();
        for ((index, option), when) in numbered().zip(conditions) {
            let choice = self.choice(option, when, first, is_prompt);
            choices.push(choice.map_err(|error| error.at(option_at(index)))?);
        }
        check_name(name).map_err(|error| error.at(&place))?;
        let plain = options.iter().all(|Opt(option)| !option.text.contains('{'));
        let own = self.declare(name, plain);
        for (choice, Opt(option)) in choices.iter_mut().zip(options) {
            choice.set.push((own, self.value(own, &option.text)));
        }
        self.slots.push(Slot {
            name: name.to_owned(),
            options: choices,
        });
        Ok(())
    }

    fn choice(
        &mut self,
        option: &Fields,
        when: Vec<(Variable, Vec<Value>)>,
        first: &Fields,
        is_prompt: bool,
    ) -> Result<Choice> {
        let mut text = Template::default();
        for part in parts(&option.text).map_err(|error| error.at("text"))? {
            self.push(&mut text, &part)
                .map_err(|error| error.at("text"))?;
        }
        if !option.set.keys().eq(first.set.keys()) {
            let names = |fields: &Fields| match fields.set.is_empty() {
                true => "nothing".to_owned(),
                false => Vec::from_iter(fields.set.keys().cloned()).join(", "),
            };
            let what = format!("sets {}, option 0 sets {}", names(option), names(first));
            return Err(Error::input(what).hint("every option of a slot sets the same names"));
        }
        let mut set = Vec::new();
        for (name, value) in &option.set {
            if value.contains(['{', '}']) {
                let what = format!("`{name}` is set to {value:?}");
                return Err(Error::input(what)
                    .hint("what is set has no placeholders")
                    .at("set"));
            }
            let variable = self.find(name).expect("declared with option 0");
            set.push((variable, self.value(variable, value)));
        }
        Ok(Choice {
            text,
            weight: weight(option)?,
            score: score(option, is_prompt)?,
            when,
            set,
        })
    }

    fn conditions(&self, option: &Fields) -> Result<Vec<(Variable, Vec<Value>)>> {
        let resolve = |(name, values): (&String, &Vec<String>)| {
            let variable = self
                .find(name)
                .ok_or_else(|| self.unknown(name).at("when"))?;
            let possible = || {
                let possible = self.names[variable].possible.iter();
                possible.map(|&value| self.values[value].as_str())
            };
            let value = |text: &String| {
                let known = self.numbers.get(text).copied();
                let known = known.filter(|value| self.names[variable].possible.contains(value));
                known.ok_or_else(|| {
                    Error::input(format!("`{name}` is never {text:?}"))
                        .hint(nearest(text, possible()))
                        .at(format!("when.{name}"))
                })
            };
            let values: Result<Vec<Value>> = values.iter().map(value).collect();
            Ok((variable, values?))
        };
        option.when.iter().map(resolve).collect()
    }

    /// Adds a piece of a text, a placeholder resolved to a variable.
    fn push(&self, template: &mut Template, part: &Part) -> Result<()> {
        let name = match part {
            Part::Text(text) => {
                template.push_text(text);
                return Ok(());
            }
            Part::Placeholder(name) => name,
        };
        let small = || {
            let mut letters = name.chars();
            let first = letters.next().filter(char::is_ascii_uppercase)?;
            self.find(&format!(
                "{}{}",
                first.to_ascii_lowercase(),
                letters.as_str()
            ))
        };
        let (variable, capital) = match (self.find(name), small()) {
            (Some(variable), _) => (variable, false),
            (None, Some(variable)) => (variable, true),
            (None, None) => return Err(self.unknown(name)),
        };
        if !self.names[variable].plain {
            let what = format!("`{{{name}}}` repeats texts that have placeholders themselves");
            return Err(Error::input(what).hint("repeat slots whose options are plain texts"));
        }
        template.push_variable(variable, capital);
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        let error = Error::input(format!("`{name}` is not known here"));
        if self.file.slot.contains_key(name) {
            return error.hint("the slot comes later in the story");
        }
        let known = self.names.iter().map(|known| &known.name);
        let all: BTreeSet<&String> = known.chain(self.file.slot.keys()).collect();
        error.hint(nearest(name, all.into_iter().map(String::as_str)))
    }

    fn check_new(&self, name: &str) -> Result<()> {
        check_name(name)?;
        if self.file.slot.contains_key(name) || self.find(name).is_some() {
            return Err(Error::input(format!("`{name}` already exists"))
                .hint("a name is a slot's, or set by the options of one slot"));
        }
        Ok(())
    }

    fn declare(&mut self, name: &str, plain: bool) -> Variable {
        self.names.push(Name {
            name: name.to_owned(),
            possible: BTreeSet::new(),
            plain,
        });
        self.names.len() - 1
    }

    fn find(&self, name: &str) -> Option<Variable> {
        self.names.iter().position(|known| known.name == name)
    }

    /// The number of a text, which is from now on a possible value of the variable.
    fn value(&mut self, variable: Variable, text: &str) -> Value {
        let next = self.values.len();
        let value = *self.numbers.entry(text.to_owned()).or_insert(next);
        if value == next {
            self.values.push(text.to_owned());
        }
        self.names[variable].possible.insert(value);
        value
    }
}

fn check_name(name: &str) -> Result<()> {
    let mut letters = name.chars();
    let starts = letters.next().is_some_and(|c| c.is_ascii_lowercase());
    if starts && letters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(Error::input(format!("`{name}` is not a name"))
        .hint("a name has letters, digits and _, and begins with a small letter"))
}

fn weight(option: &Fields) -> Result<f64> {
    let weight = option.weight.unwrap_or(1.0);
    match weight > 0.0 && weight.is_finite() {
        true => Ok(weight),
        false => Err(Error::must_be("weight", "> 0 and finite", weight)),
    }
}

fn score(option: &Fields, is_prompt: bool) -> Result<f64> {
    match option.score {
        Some(_) if is_prompt => Err(Error::input("an option of the prompt has a `score`")
            .hint("only continuations are scored; leave the key out")),
        Some(score) if !score.is_finite() => {
            Err(Error::input(format!("`score` is {score}")).hint("it must be a number"))
        }
        score => Ok(score.unwrap_or(0.0)),
    }
}
