//! What templates take from Python: `json.dumps` as a filter, and the date.
//!
//! *Why*: a template's text is compared exactly with what `transformers` renders, and Python
//! writes JSON with other spaces, and other numbers, than anyone else. (A number with an exponent within a
//! list or beside `~` is the engine's own: `1e16`, where Python has `1e+16`.)

use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// `tojson` as transformers defines it: `json.dumps` with non-ASCII letters left as they are.
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(indent) if indent.is_none() => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(indent)?.min(WIDEST + 1)),
        }),
    };
    let between = if indent.is_some() { "," } else { ", " };
    let separators = options.get::<Option<Serde<(String, String)>>>("separators")?;
    let (item, key) = match separators {
        Some(Serde(separators)) => separators,
        None => (between.into(), ": ".into()),
    };
    let style = Style {
        indent,
        item,
        key,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ensure_ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
    };
    options.assert_all_used()?;
    let indent = style.indent.as_ref().map_or(0, String::len);
    let widths = [indent, style.item.len(), style.key.len()];
    if widths.iter().any(|width| *width > WIDEST) {
        let what = format!("tojson indents and separates by at most {WIDEST} letters");
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let mut text = String::new();
    style.write(value, 0, &mut text)?;
    Ok(text)
}

/// What stands between items is repeated for each.
const WIDEST: usize = 100;

struct Style {
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
    ensure_ascii: bool,
}

impl Style {
    fn write(&self, value: &Value, depth: usize, text: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => *text += "null",
            ValueKind::Bool => *text += if value.is_true() { "true" } else { "false" },
            ValueKind::Number if value.is_integer() => *text += &value.to_string(),
            ValueKind::Number => *text += &json_float(f64::try_from(value.clone())?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), text),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.block(['[', ']'], &items, depth, text, |item, text| {
                    self.write(item, depth + 1, text)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.block(['{', '}'], &keys, depth, text, |key, text| {
                    self.key(key, text)?;
                    *text += &self.key;
                    self.write(&value.get_item(key)?, depth + 1, text)
                })?;
            }
            kind => {
                let what = format!("tojson: a value of type {kind} has no JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        }
        Ok(())
    }

    /// A key is a string, whatever it was.
    fn key(&self, key: &Value, text: &mut String) -> Result<(), Error> {
        if key.kind() == ValueKind::String {
            return self.write(key, 0, text);
        }
        text.push('"');
        self.write(key, 0, text)?;
        text.push('"');
        Ok(())
    }

    fn block(
        &self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        text: &mut String,
        write: impl Fn(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        text.push(open);
        let line = |depth: usize, text: &mut String| {
            if let Some(indent) = self.indent.as_ref().filter(|_| !items.is_empty()) {
                text.push('\n');
                *text += &indent.repeat(depth);
            }
        };
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                *text += &self.item;
            }
            line(depth + 1, text);
            write(item, text)?;
        }
        line(depth, text);
        text.push(close);
        Ok(())
    }

    fn string(&self, string: &str, text: &mut String) {
        let quoted = serde_json::Value::from(string).to_string();
        if !self.ensure_ascii {
            *text += &quoted;
            return;
        }
        let mut units = [0; 2];
        for letter in quoted.chars() {
            if letter.is_ascii() {
                text.push(letter);
            } else {
                for unit in letter.encode_utf16(&mut units) {
                    *text += &format!("\\u{unit:04x}");
                }
            }
        }
    }
}

/// What a template asks for that is not there.
pub(super) fn not_supported(what: &str) -> Error {
    let what = format!("{what} is not supported in chat templates");
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Whether Python takes the letter for white space.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

/// As `json.dumps` writes a float.
fn json_float(x: f64) -> String {
    match x {
        _ if x.is_nan() => "NaN".into(),
        _ if x.is_infinite() && x > 0.0 => "Infinity".into(),
        _ if x.is_infinite() => "-Infinity".into(),
        _ => float(x),
    }
}

/// As Python writes a float: with a point, or with two digits of exponent from 1e16 and below 1e-4.
pub(super) fn float(x: f64) -> String {
    if !x.is_finite() {
        return format!("{x:?}").to_lowercase();
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if x != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{x:?}"),
    }
}

/// The bytes of a pattern of a date.
const LONGEST_PATTERN: usize = 1024;

/// Now, in the local time zone, by a pattern of C's strftime.
pub(super) fn strftime_now(pattern: &str) -> Result<String, Error> {
    if pattern.len() > LONGEST_PATTERN {
        let what = format!("strftime_now takes at most {LONGEST_PATTERN} letters");
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    jiff::fmt::strtime::format(pattern, &jiff::Zoned::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (x, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
        ] {
            assert_eq!(float(x), text);
        }
    }
}
