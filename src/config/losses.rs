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
        Some(_) => {
            return Err(Error::input("`loss` is not a section")
                .hint("expected e.g. [loss.dpo]")
                .at_key("loss"));
        }
        None => &none,
    };
    let mut names = Vec::new();
    for key in losses.keys() {
        let loss = Loss::default_of(key).map_err(|error| error.at_key(key).at_key("loss"))?;
        let name = loss.name();
        if names.contains(&name) {
            return Err(Error::input(format!("the loss {name} is there twice"))
                .at_key(&format!("loss.{name}")));
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
                .hint("a run has one loss, or several of which each has a `weight`")
                .at_keys(&names)
                .at_key("loss"),
        ),
    }
}
