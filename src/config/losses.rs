//! `[loss]` before it is read: what a message of serde would not say.

use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::loss::Loss;

/// Checks that a loss is named, and that several have weights, in words that a serde error does not
/// find.
pub(super) fn check(table: &Table) -> Result<()> {
    let none = Table::new();
    let losses = match table.get("loss") {
        Some(Value::Table(losses)) => losses,
        Some(Value::String(name)) => {
            return Err(Error::input("`loss` is not a section")
                .hint(format!("write [loss.{name}]"))
                .at_key("loss"));
        }
        Some(_) => {
            return Err(Error::input("`loss` is not a section")
                .hint("expected e.g. [loss.dpo]")
                .at_key("loss"));
        }
        None => &none,
    };
    let mut names = Vec::new();
    for key in losses.keys() {
        let name = named(key, losses).map_err(|error| error.at_key(key).at_key("loss"))?;
        if names.contains(&name) {
            return Err(Error::input(format!("the loss {name} is there twice"))
                .at_key(&format!("loss.{name}")));
        }
        names.push(name);
    }
    let unweighted = losses
        .iter()
        .filter(|(_, knobs)| knobs.get("weight").is_none());
    let unweighted: Vec<String> = unweighted
        .map(|(name, _)| format!("loss.{name}.weight"))
        .collect();
    match names.len() {
        0 => Err(Error::input("no loss").hint("add one, e.g. [loss.dpo]")),
        1 => Ok(()),
        _ if unweighted.is_empty() => Ok(()),
        count => {
            let missing = unweighted.join(" and ");
            Err(Error::input(format!("{count} losses: {}", names.join(", ")))
                .hint(format!(
                    "a run has one loss, or a sum of losses that each have a `weight`: set {missing}"
                ))
                .at_keys(&names)
                .at_key("loss"))
        }
    }
}

/// The name of a loss that a key of `[loss]` stands for.
///
/// # Errors
/// If there is none; of a knob that stands there without its loss the error says where it belongs.
pub(super) fn named(key: &str, losses: &Table) -> Result<&'static str> {
    let error = match Loss::default_of(key) {
        Ok(loss) => return Ok(loss.name()),
        Err(error) => error,
    };
    if ["type", "name", "loss_type", "loss"].contains(&key) {
        return Err(Error::input(format!("`{key}` is no loss"))
            .hint("a loss is a section, [loss.ipo]; the override loss=ipo selects one"));
    }
    let mut here = losses.keys().filter_map(|name| Loss::default_of(name).ok());
    let owner = here.find(|loss| key == "weight" || loss.has_knob(key));
    let owner = owner.or_else(|| Loss::with_knob(key).next());
    Err(match owner {
        Some(loss) => Error::input(format!("`{key}` is a knob of a loss, not a loss"))
            .hint(format!("did you mean `loss.{}.{key}`?", loss.name())),
        None => error,
    })
}

/// Calls a loss by its name that is there by an alias.
pub(super) fn rename(losses: &mut Table, name: &str) {
    let same = |key: &str| Loss::default_of(key).is_ok_and(|loss| loss.name() == name);
    // One that is there by both names is refused later.
    if losses.contains_key(name) {
        return;
    }
    let own = |key: String| if same(&key) { name.to_owned() } else { key };
    let named = std::mem::take(losses).into_iter();
    *losses = named.map(|(key, knobs)| (own(key), knobs)).collect();
}

/// The error of a knob of the loss `name` where the losses are others.
pub(super) fn other(name: &str, losses: &Table) -> Error {
    let names: Vec<&str> = losses.keys().map(String::as_str).collect();
    let names = names.join(" + ");
    Error::input(format!("the loss is {names}, not {name}"))
        .hint(format!(
            "give loss.{name}.weight to add it as a term, or select it instead"
        ))
        .option("set", format!("loss={name}"))
}
