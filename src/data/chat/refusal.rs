//! Errors of rendering a chat template.
//!
//! *Why*: it comes from the template, or crosses from one process to another, so it is short and
//! printable whatever the template put into it.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// The letters of a message that are shown.
const LONGEST: usize = 2048;

/// What is said of a template that is stopped.
pub(super) const ENDLESS: &str = "the chat template does not come to an end";

/// An error without its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    what: String,
    hint: Option<String>,
    /// The line of the template.
    line: Option<usize>,
    /// Whether the template has nothing to do with it.
    failed: bool,
    /// Whether nothing more is to be asked of the renderer.
    pub last: bool,
}

impl Refusal {
    /// A fault of the template or its messages.
    pub fn new(what: impl Display) -> Self {
        Self {
            what: printable(&what.to_string()),
            hint: None,
            line: None,
            failed: false,
            last: false,
        }
    }

    /// What ends the run: the template took what it may not take.
    pub fn last(what: impl Display) -> Self {
        Self {
            last: true,
            ..Self::new(what)
        }
    }

    /// A failure of this system.
    pub fn failed(what: impl Display) -> Self {
        Self {
            failed: true,
            ..Self::last(what)
        }
    }

    /// What would be valid.
    pub fn hint(self, hint: &str) -> Self {
        Self {
            hint: Some(hint.to_owned()),
            ..self
        }
    }

    /// The line of the template, from 1.
    pub fn line(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }

    /// The error of the template that stands at `place`.
    pub fn at(&self, place: &str) -> Error {
        let error = match self.failed {
            true => Error::failed(&self.what),
            false => Error::input(&self.what),
        };
        let error = match &self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        };
        match self.line {
            Some(line) => error.at(format!("{place}:{line}")),
            None => error.at(place),
        }
    }
}

/// One line of printable letters, cut where it is too long.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        if shown.len() >= LONGEST {
            shown.push('…');
            break;
        }
        match letter {
            '\n' => shown.push(' '),
            _ if letter.is_control() => shown.extend(letter.escape_default()),
            _ => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_short_and_printable() {
        assert_eq!(printable("a\nb\u{1b}]0;\u{7}é"), "a b\\u{1b}]0;\\u{7}é");
        let long = printable(&"é".repeat(1 << 20));
        assert!(long.len() < LONGEST + 8 && long.ends_with("é…"), "{long}");
    }
}
