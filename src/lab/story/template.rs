//! Texts with placeholders: `{name} shared {his} bread`.
//!
//! *Why*: what a placeholder stands for is settled when the grammar is loaded, so that filling one
//! in cannot fail.

use crate::error::{Error, Result};

/// A variable of the grammar: a slot, or a name that options set.
pub(super) type Variable = usize;
/// One of the grammar's texts that a variable can stand for.
pub(super) type Value = usize;

/// What the choices so far have fixed. Variables that do not matter are masked to [`FREE`], so that
/// states that behave alike are equal.
pub(super) type State = Vec<Value>;
/// The value of a variable that is not chosen yet, or does not matter.
pub(super) const FREE: Value = usize::MAX;

/// A text whose placeholders are known variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Variable { variable: Variable, capital: bool },
}

/// A text, cut at its placeholders.
pub(super) enum Part<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

/// Cuts a text at its placeholders.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let inside = rest[open..].strip_prefix('{');
        let name = inside.and_then(|inside| inside.split_once('}'));
        let Some((name, after)) = name.filter(|(name, _)| !name.contains('{')) else {
            return Err(
                Error::input(format!("a brace without its other in {text:?}"))
                    .hint("placeholders are written {name}, and braces have no other use"),
            );
        };
        found.push(Part::Text(&rest[..open]));
        found.push(Part::Placeholder(name));
        rest = after;
    }
    found.push(Part::Text(rest));
    Ok(found)
}

impl Template {
    pub(super) fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.pieces.push(Piece::Text(text.to_owned()));
        }
    }

    pub(super) fn push_variable(&mut self, variable: Variable, capital: bool) {
        self.pieces.push(Piece::Variable { variable, capital });
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.pieces.extend(other.pieces.iter().cloned());
    }

    /// The variables that its text depends on.
    pub(super) fn variables(&self) -> impl Iterator<Item = Variable> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Variable { variable, .. } => Some(*variable),
        })
    }

    /// The text in a state that has all its variables.
    pub(super) fn fill(&self, state: &State, values: &[String]) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(own) => text.push_str(own),
                Piece::Variable { variable, capital } => {
                    let value = &values[state[*variable]];
                    let mut letters = value.chars();
                    match letters.next().filter(|_| *capital) {
                        Some(first) => {
                            text.extend(first.to_uppercase());
                            text.push_str(letters.as_str());
                        }
                        None => text.push_str(value),
                    }
                }
            }
        }
        text
    }
}
