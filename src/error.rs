//! What went wrong, where, and what would be valid.
//!
//! *Why*: the person who reads a message has one question, what to do now. So every error is
//! sorted by who can mend it, and an input error carries the place and the remedy beside the fact.

use std::fmt::{self, Display};

/// Everything expo can fail with. The variants differ in their [exit code](Error::exit_code).
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// Something the user gave cannot be used.
    Input {
        /// The fact, e.g. ``lambda is -1``.
        what: String,
        /// The place: a file with its line, a key, an option.
        at: Option<String>,
        /// What would be valid, or what to do.
        hint: Option<String>,
    },
    /// A loss, a log-prob, a gradient or a weight is NaN or infinite.
    NonFinite(String),
    /// The machine failed us: input and output, memory, a device, a server.
    Failed(String),
}

/// [`std::result::Result`] with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An input error; add [`at`](Self::at) and [`hint`](Self::hint) where they are known.
    pub fn input(what: impl Into<String>) -> Self {
        Self::Input {
            what: what.into(),
            at: None,
            hint: None,
        }
    }

    /// A failure that is nobody's input.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// An I/O failure on `path`. A file that is not there, not readable, or not what it should be is
    /// the user's to mend.
    pub fn io(path: impl AsRef<std::path::Path>, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.as_ref().display();
        let what = match error.kind() {
            ErrorKind::NotFound => "no such file or folder",
            ErrorKind::IsADirectory => "is a folder, not a file",
            ErrorKind::NotADirectory => "a part of the path is a file, not a folder",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::InvalidData => "is not UTF-8 text",
            _ => return Self::Failed(format!("{path}: {error}")),
        };
        Self::input(what).at(path)
    }

    /// Names the place of the error, outside the place it may already have.
    #[must_use]
    pub fn at(self, place: impl Display) -> Self {
        match self {
            Self::Input { what, at, hint } => {
                let at = match at {
                    Some(inner) => format!("{place}: {inner}"),
                    None => place.to_string(),
                };
                Self::Input {
                    what,
                    at: Some(at),
                    hint,
                }
            }
            Self::NonFinite(what) => Self::NonFinite(format!("{place}: {what}")),
            Self::Failed(what) => Self::Failed(format!("{place}: {what}")),
        }
    }

    /// Says what would be valid. Has no effect on errors that are nobody's input.
    #[must_use]
    pub fn hint(self, valid: impl Into<String>) -> Self {
        match self {
            Self::Input { what, at, .. } => Self::Input {
                what,
                at,
                hint: Some(valid.into()),
            },
            other => other,
        }
    }

    /// The exit code of the program: 2 wrong input, 3 non-finite value, 1 any other failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input { .. } => 2,
            Self::NonFinite(_) => 3,
            Self::Failed(_) => 1,
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Input { what, at, hint } => {
                if let Some(at) = at {
                    write!(f, "{at}: ")?;
                }
                write!(f, "{what}")?;
                hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
            }
            Self::NonFinite(what) | Self::Failed(what) => write!(f, "{what}"),
        }
    }
}

impl std::error::Error for Error {}

/// `did you mean …?` for the nearest of `valid`, else the whole list.
pub fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    // Jaro and Winkler do not see two letters that changed places in a short word.
    let likeness = |candidate: &str| match strsim::osa_distance(word, candidate) {
        0 | 1 => 1.0,
        _ => strsim::jaro_winkler(word, candidate),
    };
    // Of equals the first of the list.
    let best = valid
        .iter()
        .rev()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best {
        Some(best) if likeness(best) > 0.8 => format!("did you mean `{best}`?"),
        _ => format!("valid: {}", valid.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_place_fact_and_remedy() {
        let error = Error::input("lambda is -1")
            .hint("it lies in [0, 1]")
            .at("loss.rexpo");
        assert_eq!(
            error.at("run.toml").to_string(),
            "run.toml: loss.rexpo: lambda is -1; it lies in [0, 1]"
        );
    }

    #[test]
    fn the_nearest_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(
            nearest("lamda", ["beta", "lambda"]),
            "did you mean `lambda`?"
        );
        assert_eq!(nearest("dop", ["ipo", "dpo"]), "did you mean `dpo`?");
        assert_eq!(nearest("zzz", ["beta", "lambda"]), "valid: beta, lambda");
    }
}
