//! From TOML text and overrides to a value, with errors that lead to the line or the override.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::{Error, Result, nearest};
use crate::loss::Loss;

/// The table of a file's text with overrides of the form `section.key=value` applied, the later
/// winning.
pub(crate) fn table(text: &str, overrides: &[String]) -> Result<Table> {
    let mut table: Table = toml::from_str(text).map_err(|error| in_file(&error, text))?;
    for assignment in overrides {
        assign(&mut table, assignment)?;
    }
    Ok(table)
}

/// The table as a value; `text` and `overrides` are what it came from.
pub(crate) fn value<T: DeserializeOwned>(
    table: Table,
    text: &str,
    overrides: &[String],
) -> Result<T> {
    let value: std::result::Result<T, _> = table.try_into();
    value.map_err(|error| blame::<T>(&error, text, overrides))
}

/// Applies one override.
pub(super) fn assign(table: &mut Table, assignment: &str) -> Result<()> {
    let wrong = |what: &str| Error::input(format!("--set {assignment}: {what}"));
    let (path, text) = assignment
        .split_once('=')
        .ok_or_else(|| wrong("no `=`").hint("expected section.key=value"))?;
    let mut path: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    let value = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.trim().to_owned()));
    if let (["loss"], Value::String(name)) = (path.as_slice(), &value) {
        let name = Loss::default_of(name)?.name();
        let knobs = Table::from_iter([(name.to_owned(), Value::Table(Table::new()))]);
        table.insert("loss".into(), Value::Table(knobs));
        return Ok(());
    }
    if let (["loss", name, _], Some(Value::Table(losses))) =
        (path.as_slice(), table.get_mut("loss"))
    {
        // An alias and its name are one loss, whichever of them the file uses.
        let name = Loss::default_of(name)?.name();
        let same = |key: &str| Loss::default_of(key).is_ok_and(|loss| loss.name() == name);
        let kept = match losses.keys().any(|key| same(key)) {
            true => std::mem::take(losses),
            false => Table::new(),
        };
        let rename = |key: String| if same(&key) { name.to_owned() } else { key };
        *losses = kept
            .into_iter()
            .map(|(key, knobs)| (rename(key), knobs))
            .collect();
        path[1] = name;
    }
    let (key, sections) = path.split_last().ok_or_else(|| wrong("no key"))?;
    let mut place = table;
    for section in sections {
        let entry = place
            .entry(*section)
            .or_insert_with(|| Value::Table(Table::new()));
        place = entry
            .as_table_mut()
            .ok_or_else(|| wrong(&format!("`{section}` is no section")))?;
    }
    place.insert((*key).to_owned(), value);
    Ok(())
}

/// Checks that a loss is named, and that several have weights, in words that a serde error does not
/// find.
pub(super) fn losses(table: &Table) -> Result<()> {
    let none = Table::new();
    let losses = match table.get("loss") {
        Some(Value::Table(losses)) => losses,
        Some(_) => {
            return Err(Error::input("`loss` is no section").hint("expected e.g. [loss.dpo]"));
        }
        None => &none,
    };
    let mut names = Vec::new();
    for key in losses.keys() {
        let name = Loss::default_of(key)?.name();
        if names.contains(&name) {
            return Err(Error::input(format!("the loss {name} is there twice")));
        }
        names.push(name);
    }
    let weighted = losses.values().all(|knobs| knobs.get("weight").is_some());
    match names.len() {
        0 => Err(Error::input("no loss").hint("add one, e.g. [loss.dpo]")),
        1 => Ok(()),
        _ if weighted => Ok(()),
        count => Err(
            Error::input(format!("{count} losses: {}", names.join(", ")))
                .hint("a run has one loss, or several of which each has a `weight`"),
        ),
    }
}

/// Finds what makes `error`: the file alone, with its line, else the first override that does.
fn blame<T: DeserializeOwned>(error: &toml::de::Error, text: &str, overrides: &[String]) -> Error {
    let same = |other: &toml::de::Error| other.message() == error.message();
    if let Err(own) = toml::from_str::<T>(text)
        && same(&own)
    {
        return in_file(&own, text);
    }
    let mut table: Table = toml::from_str(text).unwrap_or_default();
    for assignment in overrides {
        let applied = assign(&mut table, assignment);
        let config: std::result::Result<T, _> = table.clone().try_into();
        if applied.is_ok() && config.is_err_and(|other| same(&other)) {
            return translate(error).at(format!("--set {assignment}"));
        }
    }
    translate(error)
}

fn in_file(error: &toml::de::Error, text: &str) -> Error {
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    match error.span() {
        Some(span) if span.start > 0 || span.end < text.len() => {
            translate(error).at(format!("line {}", line(span.start)))
        }
        _ => translate(error),
    }
}

/// A TOML error in our words: for a key that is none, the nearest that is.
fn translate(error: &toml::de::Error) -> Error {
    let message = error.message().trim();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let kinds = [("unknown field", "key"), ("unknown variant", "value")];
    let unknown = kinds.iter().find(|(start, _)| message.starts_with(start));
    match (unknown, quoted.split_first()) {
        (Some((_, kind)), Some((word, valid))) if !valid.is_empty() => {
            Error::input(format!("unknown {kind} `{word}`"))
                .hint(nearest(word, valid.iter().copied()))
        }
        _ if message.starts_with("invalid type: integer") && message.contains(" as i128") => {
            let number = quoted.first().copied().unwrap_or_default();
            Error::input(format!("the number {number} is out of range"))
                .hint(format!("a whole number is at most {}", i64::MAX))
        }
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
            Error::input(expected.unwrap_or_else(|| message.replace('\n', "; ")))
        }
    }
}
