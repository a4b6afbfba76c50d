//! A config as it was written: TOML with overrides, in which every value knows where it was set.
//!
//! Hides spans and layers. Whatever reads a [`Source`] raises errors that name config keys
//! ([`Error::at_key`]), also for values that only turn out to be wrong together or later;
//! [`Source::check`] replaces the keys by the line of the file or the override, once.

mod message;
mod origins;
mod overrides;
mod recognize;

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::{Error, Place, Result};
use crate::io::untrusted;
use crate::loss::Loss;

use super::{hint, losses, schema};
pub(super) use origins::Origin;
use origins::Origins;
pub(super) use overrides::Override;

/// A TOML table with the place where each value was set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Source {
    table: Table,
    origins: Origins,
}

impl Source {
    /// Reads a file and applies overrides of the form `section.key=value`, the later winning.
    /// `loss=NAME` takes that loss with its defaults in place of those of the file. `loss.NAME.weight=X`
    /// adds a loss to the sum; any other knob of a loss that the config does not have is an error. A
    /// word needs no quotes.
    pub fn open(path: &Path, overrides: &[String]) -> Result<Self> {
        let named = |error| recognize::recognize(path).unwrap_or(error);
        let text = untrusted::text(path, untrusted::TOML).map_err(named)?;
        let file = Some(path.display().to_string());
        Self::of_text(file, &text).map_err(named)?.with(overrides)
    }

    /// As [`parse`](Self::parse), with a name for its messages in place of a path.
    pub fn named(name: &str, text: &str, overrides: &[String]) -> Result<Self> {
        Self::of_text(Some(name.to_owned()), text)?.with(overrides)
    }

    /// As [`open`](Self::open), from the file's text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        Self::of_text(None, text)?.with(overrides)
    }

    fn of_text(file: Option<String>, text: &str) -> Result<Self> {
        let (table, origins) = Origins::of_text(file, text)?;
        Ok(Self { table, origins })
    }

    fn with(mut self, overrides: &[String]) -> Result<Self> {
        let overrides = overrides.iter().map(|text| Override::parse(text));
        self.assign(overrides.collect::<Result<_>>()?)?;
        Ok(self)
    }

    /// The values.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// The value of `model.device`, `auto` where there is none; `None` where it is not a word.
    pub fn device(&self) -> Option<&str> {
        match self
            .table
            .get("model")
            .and_then(|model| model.get("device"))
        {
            Some(device) => device.as_str(),
            None => Some("auto"),
        }
    }

    /// The values as a `T`. Errors name keys: [`check`](Self::check) them.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        self.read_as(None)
    }

    /// As [`read`](Self::read), of a config with sections of a run: an unknown key is looked for in
    /// all of them, and among the names of other programs.
    pub(super) fn read_run<T: DeserializeOwned>(&self) -> Result<T> {
        hint::check_sections(&self.table)?;
        self.read_as(Some(&self.table))
    }

    fn read_as<T: DeserializeOwned>(&self, run: Option<&Table>) -> Result<T> {
        let mut table = self.table.clone();
        if run.is_some() {
            schema::list_single(&mut table);
        }
        let value = Value::Table(table);
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = message::dotted(error.path());
            message::of_value(error.inner(), &path, run)
        })
    }

    /// Replaces the keys that an error names by the line or the override that set them; an error
    /// without a key gets the name of the file. Call it once per error.
    pub(crate) fn check<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let names_key = |place: &Place| matches!(place, Place::Keys(_));
            match (error.places().iter().any(names_key), self.origins.file()) {
                (false, Some(file)) => error.at(file),
                _ => self.locate(error),
            }
        })
    }

    /// Replaces the keys that an error names, if it names any. For errors that come up after the
    /// config was read, as when the device that it names does not exist.
    #[must_use]
    pub fn locate(&self, error: Error) -> Error {
        error.located(|keys| self.origins.places(keys))
    }

    /// Takes the loss `name` with its defaults in place of all others.
    pub(super) fn set_loss(&mut self, name: &str, origin: Origin) -> Result<()> {
        if let Some((first, _)) = name.split_once([',', '+', ' ']) {
            return Err(
                Error::input(format!("there is no loss `{name}`")).hint(format!(
                    "in a sum each loss has a weight: loss.{}.weight=1 for each of them",
                    first.trim()
                )),
            );
        }
        let name = Loss::default_of(name)?.name();
        self.remove("loss");
        self.set(&["loss", name], Value::Table(Table::new()), origin)
    }

    /// Sets a value. A loss that is not there is added if it has a weight or is the first one.
    ///
    /// # Errors
    /// If a knob is of another loss than those that are there.
    pub(super) fn set(&mut self, path: &[&str], value: Value, origin: Origin) -> Result<()> {
        let origin = self.origins.latest(origin);
        let mut path = path.to_vec();
        if let ["loss", name, ref knob @ ..] = *path
            && let Some(Value::Table(losses)) = self.table.get_mut("loss")
        {
            // An alias and its name are one loss, whichever of them the file uses.
            let name = losses::named(name, losses)?;
            let is_weighted = *knob == ["weight"] || value.get("weight").is_some();
            losses::rename(losses, name);
            if !losses.is_empty() && !losses.contains_key(name) && !is_weighted {
                return Err(losses::other(name, losses));
            }
            path[1] = name;
        }
        let (key, sections) = path.split_last().ok_or_else(|| Error::input("no key"))?;
        let mut place = &mut self.table;
        for (depth, section) in sections.iter().enumerate() {
            if !place.contains_key(*section) {
                self.origins.insert(&path[..=depth], origin.clone());
            }
            let entry = place
                .entry(*section)
                .or_insert_with(|| Value::Table(Table::new()));
            place = entry
                .as_table_mut()
                .ok_or_else(|| Error::input(format!("`{section}` is not a section")))?;
        }
        place.insert((*key).to_owned(), value);
        self.origins.replace(&path, origin);
        Ok(())
    }

    /// Sets a value that nobody wrote, where the key is missing.
    pub(super) fn or_insert(&mut self, key: &str, value: Value) {
        self.table.entry(key).or_insert(value);
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Value> {
        self.origins.remove(&[key]);
        self.table.remove(key)
    }

    /// Lays another source over this one, section by section.
    pub(super) fn overlay(&mut self, over: Self) {
        merge(&mut self.table, over.table);
        self.origins.overlay(over.origins);
    }

    /// Where a key was set, or else the section that it belongs to.
    pub(super) fn origin(&self, path: &[&str]) -> Origin {
        self.origins.of(path)
    }
}

/// `over` on top of `base`, section by section.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        #[allow(dead_code)]
        run: Run,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Run {
        #[allow(dead_code)]
        steps: u64,
        #[allow(dead_code)]
        rates: Option<Vec<f64>>,
    }

    fn refusal(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let read = Source::parse(text, &overrides).and_then(|source| {
            let read = source.read::<Read>();
            source.check(read)
        });
        read.unwrap_err().to_string()
    }

    #[test]
    fn an_error_of_a_value_names_its_line_or_its_override() {
        let text = "\n[run]\nsteps = 3\n";
        for (text, set, want) in [
            ("[run]\nsteps = true\n", None, "line 2: "),
            (
                "[run]\nsteps = 1\nstep = 1\n",
                None,
                "line 3: unknown key `step`",
            ),
            (
                "[runs]\n[run]\nsteps = 1\n",
                None,
                "line 1: unknown key `runs`",
            ),
            ("\n[run]\n", None, "line 2: [run]: missing key `steps`"),
            (
                "[run]\nsteps = 1\nrates = [1.0,\n\"x\"]\n",
                None,
                "line 4: ",
            ),
            ("", None, "missing key `run`"),
            ("[run\n", None, "line 1: "),
            (text, Some("run.steps=x"), "set run.steps=x: "),
            (
                text,
                Some("run.step=1"),
                "set run.step=1: unknown key `step`",
            ),
            (text, Some("run=1"), "set run=1: "),
            (text, Some("run"), "set run: no `=`"),
            (
                text,
                Some("run.steps.x=1"),
                "set run.steps.x=1: `steps` is not a section",
            ),
        ] {
            let error = refusal(text, set.as_slice());
            assert!(error.starts_with(want), "{error}, not {want}");
        }
    }

    #[test]
    fn of_keys_that_contradict_each_other_the_last_one_set_is_named() {
        let text = "[batch]\na = 1\nb = 2\n";
        let place = |set: &[&str], keys: &[&str]| {
            let set: Vec<String> = set.iter().map(ToString::to_string).collect();
            let source = Source::parse(text, &set).unwrap();
            let error = Error::input("both").at_keys(keys).at_key("batch");
            source.locate(error).to_string()
        };
        assert_eq!(place(&[], &["a", "b"]), "line 3: both");
        assert_eq!(place(&[], &["a", "c"]), "line 2: both");
        assert_eq!(place(&["batch.a=3"], &["a", "b"]), "set batch.a=3: both");
        let both = ["batch.b=3", "batch.a=3"];
        assert_eq!(place(&both, &["a", "b"]), "set batch.a=3: both");
        assert_eq!(place(&[], &["c"]), "line 1: batch.c: both");
    }

    #[test]
    fn an_alias_of_a_loss_has_the_place_of_its_name() {
        let source = Source::parse("[loss.typo]\nlambda = -1.0\n", &[]).unwrap();
        let error = Error::input("wrong").at_key("loss.cexpo.lambda");
        assert_eq!(source.locate(error).to_string(), "line 2: wrong");
    }
}
