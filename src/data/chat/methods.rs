//! The methods that Python's strings and lists have.
//!
//! *Why*: templates call them, and the engine and its companion crate know only some, and those with the
//! standard library's idea of white space.

use super::python::{is_space, not_supported};
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// The letters that a text may be filled up to.
const WIDEST: usize = 1 << 20;

/// Calls a method that the engine does not know.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let known = match (value.kind(), value.as_str()) {
        (_, Some(text)) => text_method(text, method, args)?,
        (ValueKind::Seq | ValueKind::Iterable, _) => list_method(value, method, args)?,
        (ValueKind::Map, _) if method == "copy" => from_args(args).map(|()| Some(value.clone()))?,
        _ => None,
    };
    match known {
        Some(value) => Ok(value),
        None => unknown_method_callback(state, value, method, args),
    }
}

fn wrong(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn list_method(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(match method {
        "copy" => from_args(args).map(|()| Some(value.clone()))?,
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *wanted);
            Some(
                at.ok_or_else(|| wrong("the value is not in the list"))?
                    .into(),
            )
        }
        _ => None,
    })
}

// `None` where it is not one of them.
fn text_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let none = || from_args::<()>(args);
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (letters,): (Option<&str>,) = from_args(args)?;
            strip(text, letters, method != "rstrip", method != "lstrip").into()
        }
        "split" | "rsplit" => split(text, args, method == "rsplit")?,
        "splitlines" => {
            let (keep, named): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(named.get("keepends")?).unwrap_or(false);
            named.assert_all_used()?;
            lines(text, keep).into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(wrong("empty separator"));
            }
            let (from_start, found) = match method {
                "partition" => (true, text.split_once(separator)),
                _ => (false, text.rsplit_once(separator)),
            };
            let parts = match (found, from_start) {
                (Some((before, behind)), _) => [before, separator, behind],
                (None, true) => [text, "", ""],
                (None, false) => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let found = window(text, start, end).and_then(|(part, before)| {
                let at = match method.starts_with('r') {
                    true => part.rfind(wanted),
                    false => part.find(wanted),
                };
                Some(before + part[..at?].chars().count())
            });
            match found {
                Some(at) => at.into(),
                None if method.ends_with("find") => (-1).into(),
                None => return Err(wrong("substring not found")),
            }
        }
        "count" => {
            let (wanted, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let part = window(text, start, end);
            part.map_or(0, |(part, _)| part.matches(wanted).count())
                .into()
        }
        "startswith" | "endswith" => {
            let (wanted, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let options: Vec<Value> = match wanted.as_str() {
                Some(_) => vec![wanted.clone()],
                None if wanted.is_tuple() => wanted.try_iter()?.collect(),
                None => {
                    return Err(wrong(format!(
                        "{method} takes a string or a tuple of strings"
                    )));
                }
            };
            let Some((part, _)) = window(text, start, end) else {
                return Ok(Some(false.into()));
            };
            let mut found = false;
            for option in &options {
                let option = option.as_str();
                let option = option.ok_or_else(|| wrong(format!("{method} takes strings")))?;
                found |= match method {
                    "startswith" => part.starts_with(option),
                    _ => part.ends_with(option),
                };
            }
            found.into()
        }
        "removeprefix" => {
            let (part,): (&str,) = from_args(args)?;
            text.strip_prefix(part).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            text.strip_suffix(part).unwrap_or(text).into()
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let signed = text.starts_with(['-', '+']);
            let (sign, digits) = text.split_at(usize::from(signed));
            let zeros = missing(text, width)?;
            format!("{sign}{}{digits}", "0".repeat(zeros)).into()
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<char>) = from_args(args)?;
            let fill = fill.unwrap_or(' ').to_string();
            let room = missing(text, width)?;
            let left = match method {
                "ljust" => 0,
                "rjust" => room,
                _ => centered(room, width),
            };
            format!("{}{text}{}", fill.repeat(left), fill.repeat(room - left)).into()
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            let mut joined = String::new();
            for (index, item) in items.try_iter()?.enumerate() {
                if index > 0 {
                    joined += text;
                }
                joined += item.as_str().ok_or_else(|| {
                    wrong(format!(
                        "join: item {index} is a {}, not a string",
                        item.kind()
                    ))
                })?;
            }
            joined.into()
        }
        "expandtabs" => {
            let (size,): (Option<i64>,) = from_args(args)?;
            let size = usize::try_from(size.unwrap_or(8)).unwrap_or(0);
            expand_tabs(text, size.min(WIDEST))?.into()
        }
        "swapcase" => {
            none()?;
            let swapped = text.chars().flat_map(|letter| match letter.is_uppercase() {
                true => letter.to_lowercase().collect::<Vec<_>>(),
                false => letter.to_uppercase().collect(),
            });
            swapped.collect::<String>().into()
        }
        "casefold" => {
            none()?;
            text.to_uppercase().to_lowercase().into()
        }
        "title" => {
            none()?;
            title(text).into()
        }
        "istitle" => {
            none()?;
            let cased = |letter: char| letter.is_uppercase() || letter.is_lowercase();
            (text.chars().any(cased) && title(text) == text).into()
        }
        "isspace" => {
            none()?;
            (!text.is_empty() && text.chars().all(is_space)).into()
        }
        "isdecimal" => {
            none()?;
            (!text.is_empty() && text.chars().all(char::is_numeric)).into()
        }
        "encode" | "format_map" | "translate" | "maketrans" | "isidentifier" | "isprintable" => {
            return Err(not_supported(&format!("str.{method}")));
        }
        _ => return Ok(None),
    }))
}

/// The letters that are missing to `width`.
fn missing(text: &str, width: i64) -> Result<usize, Error> {
    let width = usize::try_from(width).unwrap_or(0);
    if width > WIDEST {
        return Err(wrong(format!(
            "a text is filled up to at most {WIDEST} letters"
        )));
    }
    Ok(width.saturating_sub(text.chars().count()))
}

/// The part of the room that Python leaves to the left.
fn centered(room: usize, width: i64) -> usize {
    room / 2 + (room & 1 & width.unsigned_abs() as usize)
}

/// A text in the middle of `width` letters.
pub(super) fn center(text: &str, width: i64) -> Result<String, Error> {
    let room = missing(text, width)?;
    let left = centered(room, width);
    Ok(format!(
        "{}{text}{}",
        " ".repeat(left),
        " ".repeat(room - left)
    ))
}

/// Without white space, or any of `letters`, at these ends.
pub(super) fn strip<'a>(text: &'a str, letters: Option<&str>, start: bool, end: bool) -> &'a str {
    let goes = |letter: char| match letters {
        Some(letters) => letters.contains(letter),
        None => is_space(letter),
    };
    let text = if start {
        text.trim_start_matches(goes)
    } else {
        text
    };
    if end {
        text.trim_end_matches(goes)
    } else {
        text
    }
}

/// Text between two positions as Python counts them, and the letters before it.
fn window(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(&str, usize)> {
    if start.is_none() && end.is_none() {
        return Some((text, 0));
    }
    let letters = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { (letters + at).max(0) } else { at };
    let (start, end) = (
        place(start.unwrap_or(0)),
        place(end.unwrap_or(letters)).min(letters),
    );
    if start > end {
        return None;
    }
    let byte = |at: i64| {
        let mut places = text.char_indices().map(|(byte, _)| byte);
        places.nth(at as usize).unwrap_or(text.len())
    };
    Some((&text[byte(start)..byte(end)], start as usize))
}

fn split(text: &str, args: &[Value], from_end: bool) -> Result<Value, Error> {
    let (separator, most, named): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = separator.map_or_else(|| named.get::<Option<&str>>("sep"), |s| Ok(Some(s)))?;
    let most = most.or(named.get("maxsplit")?).unwrap_or(-1);
    named.assert_all_used()?;
    let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = match (separator, from_end) {
        (Some(""), _) => return Err(wrong("empty separator")),
        (Some(separator), false) => text.splitn(most + 1, separator).collect(),
        (Some(separator), true) => text.rsplitn(most + 1, separator).collect(),
        (None, _) => blank_split(text, most, from_end),
    };
    if from_end {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Parts between white space, the last ones first if `from_end`.
fn blank_split(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = strip(text, None, !from_end, from_end);
    while !rest.is_empty() {
        let at = match from_end {
            _ if parts.len() >= most => None,
            true => rest.rfind(is_space),
            false => rest.find(is_space),
        };
        let Some(at) = at else {
            // Its other end keeps its white space only where nothing was split off there.
            parts.push(strip(
                rest,
                None,
                from_end && parts.len() < most,
                !from_end && parts.len() < most,
            ));
            break;
        };
        let width = rest[at..].chars().next().map_or(0, char::len_utf8);
        let (before, behind) = (&rest[..at], &rest[at + width..]);
        parts.push(if from_end { behind } else { before });
        let left = if from_end { before } else { behind };
        rest = strip(left, None, !from_end, from_end);
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Lines as Python sees them, with their ends if `keep`.
fn lines(text: &str, keep: bool) -> Vec<&str> {
    let is_end = |letter: char| {
        matches!(
            letter,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_end) {
        let end = match rest[at..].starts_with("\r\n") {
            true => at + 2,
            false => at + rest[at..].chars().next().map_or(0, char::len_utf8),
        };
        found.push(&rest[..if keep { end } else { at }]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        found.push(rest);
    }
    found
}

/// Each run of letters with a capital in front.
fn title(text: &str) -> String {
    let mut inside = false;
    let letters = text.chars().flat_map(|letter| {
        let own = if inside {
            letter.to_lowercase().to_string()
        } else {
            letter.to_uppercase().to_string()
        };
        inside = letter.is_uppercase() || letter.is_lowercase();
        own.chars().collect::<Vec<_>>()
    });
    letters.collect()
}

fn expand_tabs(text: &str, size: usize) -> Result<String, Error> {
    let (mut expanded, mut column) = (String::new(), 0);
    for letter in text.chars() {
        match letter {
            '\t' => {
                let blanks = if size == 0 { 0 } else { size - column % size };
                expanded += &" ".repeat(blanks);
                column += blanks;
            }
            _ => {
                expanded.push(letter);
                column = if matches!(letter, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
            }
        }
        if expanded.len() > (64 << 20) {
            return Err(wrong("expandtabs makes too long a text"));
        }
    }
    Ok(expanded)
}
