//! Where each value of a config was set.

use std::collections::BTreeMap;

use toml::Table;
use toml::de::{DeTable, DeValue};

use super::message;
use crate::error::{Error, Place, Result};
use crate::loss::Loss;

/// The origins by dotted key; an item of a list has its index as the last part of its key.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Origins {
    file: Option<String>,
    /// The number of files and overrides so far.
    layers: usize,
    of: BTreeMap<String, Origin>,
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::config) struct Origin {
    /// The layer and the line in it: the greater one was set later.
    order: (usize, usize),
    place: Vec<Place>,
}

impl Origin {
    /// Of a value that an override sets.
    pub(super) fn of_override(assignment: &str) -> Self {
        Self {
            order: (0, 0),
            place: vec![Place::Parameter("set", Some(assignment.trim().to_owned()))],
        }
    }

    /// A line of a file, or an override.
    pub(super) fn place(&self) -> &[Place] {
        &self.place
    }
}

impl Origins {
    /// The values of a file's text with the line of each.
    pub(super) fn of_text(file: Option<String>, text: &str) -> Result<(Table, Self)> {
        let at = |offset: usize| Self::line(file.as_deref(), text, offset);
        let wrong = |error: &toml::de::Error| {
            let offset = error.span().map_or(0, |span| span.start);
            let places = at(offset).place.into_iter().rev();
            places.fold(message::of_syntax(error), Error::within)
        };
        let table: Table = toml::from_str(text).map_err(|error| wrong(&error))?;
        let spans = DeTable::parse(text).map_err(|error| wrong(&error))?;
        let mut origins = Self {
            layers: 1,
            ..Self::default()
        };
        origins.walk(&mut Vec::new(), spans.get_ref(), &at);
        origins.file = file;
        Ok((table, origins))
    }

    fn line(file: Option<&str>, text: &str, offset: usize) -> Origin {
        let line = text[..offset].matches('\n').count() + 1;
        let file = file.map(|file| Place::Text(file.to_owned()));
        Origin {
            order: (0, line),
            place: file.into_iter().chain([Place::Line(line)]).collect(),
        }
    }

    fn walk<'a>(
        &mut self,
        path: &mut Vec<std::borrow::Cow<'a, str>>,
        table: &'a DeTable,
        at: &impl Fn(usize) -> Origin,
    ) {
        for (key, value) in table {
            path.push(key.get_ref().as_ref().into());
            self.note(path, at(key.span().start));
            self.inner(path, value.get_ref(), at);
            path.pop();
        }
    }

    fn inner<'a>(
        &mut self,
        path: &mut Vec<std::borrow::Cow<'a, str>>,
        value: &'a DeValue,
        at: &impl Fn(usize) -> Origin,
    ) {
        match value {
            DeValue::Table(table) => self.walk(path, table, at),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string().into());
                    self.note(path, at(item.span().start));
                    self.inner(path, item.get_ref(), at);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, path: &[std::borrow::Cow<str>], origin: Origin) {
        let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        self.insert(&path, origin);
    }

    /// The file's name.
    pub(super) fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The same place as that of a value which is set later than all so far.
    pub(super) fn latest(&mut self, origin: Origin) -> Origin {
        self.layers += 1;
        Origin {
            order: (self.layers, 0),
            ..origin
        }
    }

    pub(super) fn insert(&mut self, path: &[&str], origin: Origin) {
        self.of.insert(key(path), origin);
    }

    /// As [`insert`](Self::insert), forgetting what lies below the key.
    pub(super) fn replace(&mut self, path: &[&str], origin: Origin) {
        self.remove(path);
        self.insert(path, origin);
    }

    pub(super) fn remove(&mut self, path: &[&str]) {
        let key = key(path);
        let below = format!("{key}.");
        self.of
            .retain(|other, _| *other != key && !other.starts_with(&below));
    }

    /// Takes over the origins of a source that is laid over this one.
    pub(super) fn overlay(&mut self, over: Self) {
        for (key, mut origin) in over.of {
            origin.order.0 += self.layers;
            self.of.insert(key, origin);
        }
        self.layers += over.layers;
        self.file = over.file.or(self.file.take());
    }

    /// Where a key was set, or else the nearest section around it, or else the file.
    pub(super) fn of(&self, path: &[&str]) -> Origin {
        let nearest = self.nearest(&key(path));
        nearest.map_or_else(
            || Origin {
                order: (0, 0),
                place: self.file.clone().map(Place::Text).into_iter().collect(),
            },
            |(origin, _)| origin.clone(),
        )
    }

    fn nearest(&self, key: &str) -> Option<(&Origin, bool)> {
        if let Some(origin) = self.of.get(key) {
            return Some((origin, true));
        }
        let mut key = key;
        while let Some((section, _)) = key.rsplit_once('.') {
            if let Some(origin) = self.of.get(section) {
                return Some((origin, false));
            }
            key = section;
        }
        None
    }

    /// The place of an error at these keys: the one of them that was set last, for it is the one to
    /// doubt; where none was set, the section, and the key.
    pub(super) fn places(&self, keys: &[String]) -> Vec<Place> {
        let of_key = |name: &String| {
            let path: Vec<&str> = name.split('.').collect();
            self.nearest(&key(&path))
        };
        let found: Vec<(&Origin, bool)> = keys.iter().filter_map(of_key).collect();
        let last = found
            .into_iter()
            .max_by_key(|(origin, exact)| (*exact, origin.order));
        match last {
            Some((origin, true)) => origin.place.clone(),
            Some((origin, false)) => {
                let section = origin.place.iter().cloned();
                section.chain([Place::Keys(keys.to_vec())]).collect()
            }
            None => {
                let file = self.file.clone().map(Place::Text);
                file.into_iter()
                    .chain([Place::Keys(keys.to_vec())])
                    .collect()
            }
        }
    }
}

/// The dotted key of a path, in which a loss has its name and not an alias.
fn key(path: &[&str]) -> String {
    match path {
        ["loss", name, rest @ ..] => {
            let name = Loss::default_of(name).map_or(*name, |loss| loss.name());
            [&["loss", name], rest].concat().join(".")
        }
        path => path.join("."),
    }
}
