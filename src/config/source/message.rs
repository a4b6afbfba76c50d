//! The messages of TOML and serde in our words.

use serde_path_to_error::{Path, Segment};

use super::super::hint;
use crate::error::{Error, nearest};
use toml::Table;

/// The path of a value as a dotted key.
pub(super) fn dotted(path: &Path) -> String {
    let part = |segment: &Segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    };
    path.iter().filter_map(part).collect::<Vec<_>>().join(".")
}

/// An error of text that is not TOML.
pub(super) fn of_syntax(error: &toml::de::Error) -> Error {
    translate(error.message().trim(), "", None)
}

/// An error of a value, at its key; `run` is the config where it is one of a run.
pub(super) fn of_value(error: &toml::de::Error, path: &str, run: Option<&Table>) -> Error {
    let message = error.message().trim();
    let missing = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    let key = match (missing, path) {
        (Some(key), "") => key.to_owned(),
        (Some(key), section) => format!("{section}.{key}"),
        (None, path) => path.to_owned(),
    };
    let error = match missing {
        Some(key) => Error::input(format!("missing key `{key}`")),
        None => translate(message, path, run),
    };
    match key.as_str() {
        "" => error,
        key => error.at_key(key),
    }
}

fn out_of_range(number: &str) -> Error {
    Error::input(format!("the number {number} is out of range"))
        .hint(format!("a whole number is at most {}", i64::MAX))
}

/// The whole number of an override that no i64 holds, which TOML does not take for a number, where a
/// whole number is expected.
fn too_long(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("invalid type: string \"")?;
    let (text, expected) = rest.split_once("\", expected ")?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && text.parse::<i64>().is_err() && ["usize", "u64"].contains(&expected))
        .then_some(text)
}

/// The error of a negative number in the place of a count, such as the -1 that elsewhere is no limit.
fn below_zero(message: &str, path: &str) -> Option<Error> {
    let rest = message.strip_prefix("invalid value: integer `-")?;
    let (number, expected) = rest.split_once("`, expected ")?;
    if !["usize", "u64", "u32"].contains(&expected) {
        return None;
    }
    let key = path.rsplit('.').next().unwrap_or(path);
    let must_be = |valid: &str| {
        Error::input(format!(
            "{key} must be a whole number {valid} (got -{number})"
        ))
    };
    Some(match path {
        "run.seed" | "sample.seed" => must_be(">= 0"),
        "run.max_steps" => must_be(">= 1")
            .hint("leave the key out for no limit; run.num_train_epochs then decides"),
        _ => must_be(">= 1").hint("leave the key out for its default"),
    })
}

/// What to write in the place of a word that is a value elsewhere.
fn of_word(message: &str) -> Option<String> {
    let rest = message.strip_prefix("invalid type: string \"")?;
    let (word, expected) = rest.split_once("\", expected ")?;
    let lower = word.to_lowercase();
    match (expected, lower.as_str()) {
        ("a boolean", "true" | "yes" | "on" | "1") => Some("write true".to_owned()),
        ("a boolean", "false" | "no" | "off" | "0") => Some("write false".to_owned()),
        (_, "null" | "none" | "nil" | "no" | "off" | "false" | "") => {
            Some("leave the key out for no value".to_owned())
        }
        ("f64" | "usize" | "u64", _) if word.parse::<f64>().is_ok_and(f64::is_finite) => {
            Some(format!("write {word} without quotes"))
        }
        _ => None,
    }
}

fn translate(message: &str, path: &str, run: Option<&Table>) -> Error {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let kinds = [("unknown field", "key"), ("unknown variant", "value")];
    let unknown = kinds.iter().find(|(start, _)| message.starts_with(start));
    match (unknown, quoted.split_first()) {
        (Some((_, kind)), Some((word, valid))) if !valid.is_empty() => {
            let hint = match (run, *kind) {
                (Some(config), "key") => hint::of_key(path, valid, config),
                (Some(_), _) => hint::of_value(path, word, valid),
                // The nearest that exists.
                (None, _) => nearest(word, valid.iter().copied()),
            };
            Error::input(format!("unknown {kind} `{word}`")).hint(hint)
        }
        _ if message.starts_with("invalid type: integer") && message.contains(" as i128") => {
            out_of_range(quoted.first().copied().unwrap_or_default())
        }
        _ if too_long(message).is_some() => out_of_range(too_long(message).unwrap_or_default()),
        _ => {
            let names = [
                ("usize", "a whole number"),
                ("u64", "a whole number"),
                ("f64", "a number"),
            ];
            let expected = names.iter().find_map(|(own, name)| {
                let start = message.strip_suffix(own)?.strip_suffix("expected ")?;
                Some(format!("{start}expected {name}"))
            });
            if let Some(error) = below_zero(message, path) {
                return error;
            }
            let error = Error::input(expected.unwrap_or_else(|| message.replace('\n', "; ")));
            if message.contains("expected struct") {
                let error = error.with_fact(|_| "a value in the place of a section".to_owned());
                return match run.and_then(|_| hint::of_section(path)) {
                    Some(hint) => error.hint(hint),
                    None => error,
                };
            }
            match of_word(message) {
                Some(hint) => error.hint(hint),
                None => error,
            }
        }
    }
}
