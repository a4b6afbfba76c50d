//! Filters and tests of Jinja2 that the engine lacks or implements differently.

use super::methods::{center, strip};
use super::python::{float, is_space, not_supported};
use super::source::{ITERATED, PERCENT};
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, filters};
use minijinja_contrib::globals::{cycler, joiner};

pub(super) fn add_to(environment: &mut Environment) {
    environment.set_formatter(write);
    environment.add_filter(ITERATED, iterated);
    environment.add_filter(PERCENT, percent);
    environment.add_filter("trim", |value: &Value, letters: Option<&str>| {
        strip(&text_of(value), letters, true, true).to_owned()
    });
    environment.add_filter("string", text_of);
    environment.add_filter("int", int);
    environment.add_filter("float", to_float);
    environment.add_filter("center", |value: &Value, width: Option<i64>| {
        center(&text_of(value), width.unwrap_or(80))
    });
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", word_count);
    environment.add_filter("urlencode", url_encode);
    environment.add_filter("forceescape", filters::escape);
    environment.add_filter("random", |_: &Value| -> Result<Value, Error> {
        Err(not_supported("random"))
    });
    environment.add_filter("replace", replace);
    environment.add_filter("indent", indent);
    for (name, filter) in [
        ("batch", Value::from_function(filters::batch)),
        ("groupby", Value::from_function(filters::groupby)),
        ("join", Value::from_function(filters::join)),
        ("list", Value::from_function(filters::list)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reverse", Value::from_function(filters::reverse)),
        ("slice", Value::from_function(filters::slice)),
        ("sort", Value::from_function(filters::sort)),
        ("sum", Value::from_function(filters::sum)),
        ("unique", Value::from_function(filters::unique)),
    ] {
        environment.add_filter(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            args.first().map(iterated).transpose()?;
            filter.call(state, &args)
        });
    }
    // What is undefined has no items.
    for (name, filter, none) in [
        (
            "count",
            Value::from_function(filters::length),
            Value::from(0),
        ),
        (
            "first",
            Value::from_function(filters::first),
            Value::UNDEFINED,
        ),
        (
            "items",
            Value::from_function(filters::items),
            Vec::<Value>::new().into(),
        ),
        (
            "last",
            Value::from_function(filters::last),
            Value::UNDEFINED,
        ),
        (
            "length",
            Value::from_function(filters::length),
            Value::from(0),
        ),
    ] {
        environment.add_filter(name, move |state: &mut State, value: &Value| {
            match value.is_undefined() {
                true => Ok(none.clone()),
                false => filter.call(state, std::slice::from_ref(value)),
            }
        });
    }
    environment.add_test("iterable", |value: &Value| iterated(value).is_ok());
    environment.add_test("sequence", |value: &Value| {
        let kinds = [
            ValueKind::Seq,
            ValueKind::Map,
            ValueKind::String,
            ValueKind::Undefined,
        ];
        kinds.contains(&value.kind())
    });
    environment.add_test("callable", |value: &Value| {
        matches!(value.kind(), ValueKind::Plain | ValueKind::Undefined)
    });
    environment.add_function("cycler", |items: Rest<Value>| cycler(items.0));
    environment.add_function("joiner", joiner);
}

/// Writes a value as Python's `str` does; the engine differs in floats.
fn write(output: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match as_float(value) {
        Some(number) => output.write_str(&float(number)).map_err(Error::from),
        None => minijinja::escape_formatter(output, state, value),
    }
}

fn as_float(value: &Value) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float
        .then(|| f64::try_from(value.clone()).ok())
        .flatten()
}

/// Python's `str`.
fn text_of(value: &Value) -> String {
    match as_float(value) {
        Some(number) => float(number),
        None => value.to_string(),
    }
}

/// The value, if Python can iterate over it.
fn iterated(value: &Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
            let what = format!("a value of type {} cannot be iterated over", value.kind());
            Err(Error::new(ErrorKind::InvalidOperation, what))
        }
        _ => Ok(value.clone()),
    }
}

/// Python's `%` of a string.
fn percent(pattern: &str, value: &Value) -> Result<String, Error> {
    let values: Vec<Value> = match value.is_tuple() {
        true => value.try_iter()?.collect(),
        false => vec![value.clone()],
    };
    format(FormatStyle::Printf, pattern, &values)
}

fn int(
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    named: Kwargs,
) -> Result<Value, Error> {
    let default = default.or(named.get("default")?).unwrap_or(0.into());
    let base = base.or(named.get("base")?).unwrap_or(10);
    named.assert_all_used()?;
    let whole = |number: f64| match number.is_finite() {
        true => Value::from(number.trunc() as i128),
        false => default.clone(),
    };
    defined(value)?;
    let Some(text) = value.as_str() else {
        return Ok(match value.kind() {
            ValueKind::Bool => Value::from(i64::from(value.is_true())),
            ValueKind::Number if value.is_integer() => value.clone(),
            _ => as_float(value).map_or(default.clone(), whole),
        });
    };
    let text = text.trim_matches(is_space);
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    if !(2..=36).contains(&base) {
        return Ok(default);
    }
    let digits = text.to_lowercase().replace('_', "");
    let digits = digits.strip_prefix(prefix).unwrap_or(&digits);
    if let Ok(number) = i128::from_str_radix(digits, base) {
        return Ok(number.into());
    }
    Ok(text.parse().map_or(default.clone(), whole))
}

fn to_float(value: &Value, default: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = default.or(named.get("default")?).unwrap_or(0.0.into());
    named.assert_all_used()?;
    defined(value)?;
    let number = match value.as_str() {
        Some(text) => text.trim_matches(is_space).parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok(),
    };
    Ok(number.map_or(default, Value::from))
}

fn defined(value: &Value) -> Result<(), Error> {
    match value.is_undefined() {
        true => Err(Error::new(ErrorKind::UndefinedError, "it is not a number")),
        false => Ok(()),
    }
}

fn replace(value: &Value, old: &Value, new: &Value, count: Option<usize>) -> String {
    let (text, old, new) = (text_of(value), text_of(old), text_of(new));
    match count {
        Some(count) => text.replacen(&old, &new, count),
        None => text.replace(&old, &new),
    }
}

fn indent(state: &mut State, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (Some(text), Some(front)) = (
        args.first().and_then(Value::as_str),
        args.get(1).and_then(Value::as_str),
    ) else {
        return Value::from_function(filters::indent).call(state, &args);
    };
    let (first, blank, named): (Option<bool>, Option<bool>, Kwargs) = from_args(&args[2..])?;
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let lines = text.split('\n').enumerate().map(|(index, line)| {
        match index == 0 && !first || index > 0 && line.is_empty() && !blank {
            true => line.to_owned(),
            false => format!("{front}{line}"),
        }
    });
    Ok(lines.collect::<Vec<_>>().join("\n").into())
}

fn truncate(
    value: &Value,
    length: Option<usize>,
    kill_words: Option<bool>,
    end: Option<String>,
    named: Kwargs,
) -> Result<String, Error> {
    let text = text_of(value);
    let length = length.or(named.get("length")?).unwrap_or(255);
    let kill_words = kill_words.or(named.get("killwords")?).unwrap_or(false);
    let end = end.or(named.get("end")?).unwrap_or("...".into());
    let leeway = named.get::<Option<usize>>("leeway")?.unwrap_or(5);
    named.assert_all_used()?;
    let Some(room) = length.checked_sub(end.chars().count()) else {
        let what = format!(
            "truncate: expected length >= {}, got {length}",
            end.chars().count()
        );
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let kept: String = text.chars().take(room).collect();
    Ok(match kept.rsplit_once(' ') {
        Some((kept, _)) if !kill_words => format!("{kept}{end}"),
        _ => kept + &end,
    })
}

fn word_count(value: &Value) -> usize {
    let text = text_of(value);
    let words = text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    words.filter(|word| !word.is_empty()).count()
}

/// Percent-encoding, of a text, or of the fields of a query.
fn url_encode(value: &Value) -> Result<String, Error> {
    let fields: Vec<(Value, Value)> = match value.kind() {
        ValueKind::Map => {
            let keys = value.try_iter()?;
            keys.map(|key| Ok((key.clone(), value.get_item(&key)?)))
                .collect::<Result<_, Error>>()?
        }
        ValueKind::Seq | ValueKind::Iterable => value
            .try_iter()?
            .map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?)))
            .collect::<Result<_, Error>>()?,
        _ => return Ok(quote(&text_of(value), "/")),
    };
    let quoted = |value: &Value| quote(&text_of(value), "").replace("%20", "+");
    let fields = fields
        .iter()
        .map(|(key, value)| format!("{}={}", quoted(key), quoted(value)));
    Ok(fields.collect::<Vec<_>>().join("&"))
}

fn quote(text: &str, safe: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        let letter = char::from(byte);
        match letter.is_ascii_alphanumeric() || "_.-~".contains(letter) || safe.contains(letter) {
            true => quoted.push(letter),
            false => quoted += &format!("%{byte:02X}"),
        }
    }
    quoted
}
