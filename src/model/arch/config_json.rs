//! Reading `config.json`: every error names the file, the key and what would be valid.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::io::untrusted::{self, Document};
use crate::model::recognize::without_config;

/// What a number of `config.json` may be, so that the elements of all tensors are counted in 64 bits,
/// and a list with an entry per layer is a short one.
const LARGEST: [(&str, usize); 14] = [
    ("num_hidden_layers", 10_000),
    ("vocab_size", 1 << 24),
    ("hidden_size", 1 << 20),
    ("intermediate_size", 1 << 22),
    ("num_attention_heads", 1 << 12),
    ("num_key_value_heads", 1 << 12),
    ("head_dim", 1 << 12),
    ("moe_intermediate_size", 1 << 22),
    ("num_experts", 1 << 12),
    ("num_local_experts", 1 << 12),
    ("n_embd", 1 << 20),
    ("n_head", 1 << 12),
    ("n_inner", 1 << 22),
    ("n_layer", 10_000),
];

/// A `config.json` that says which key is wrong.
#[derive(Debug)]
pub struct ConfigJson {
    /// The whole object.
    pub value: Value,
    place: String,
}

impl From<Value> for ConfigJson {
    fn from(value: Value) -> Self {
        Self {
            value,
            place: "config.json".to_owned(),
        }
    }
}

impl ConfigJson {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(&Document::read(path, untrusted::CONFIG))
    }

    /// Parses the file.
    pub fn of(document: &Document) -> Result<Self> {
        let directory = document.path().parent();
        if let Some(directory) = directory.filter(|_| !document.exists())
            && let Some(error) = without_config(directory)
        {
            return Err(error);
        }
        Ok(Self {
            value: document.json_object()?,
            place: document.path().display().to_string(),
        })
    }

    /// The object under a key.
    pub fn section(&self, key: &str) -> Result<Self> {
        let value = self.value[key].clone();
        if !value.is_object() {
            return Err(self.wrong(key, "an object"));
        }
        Ok(Self {
            value,
            place: format!("{}: {key}", self.place),
        })
    }

    /// The same object, with numbers in the place of the keys that are not there.
    pub fn with_defaults(&self, defaults: &[(&str, usize)]) -> Self {
        let mut value = self.value.clone();
        for (key, number) in defaults {
            if value.get(key).is_none() {
                value[*key] = (*number).into();
            }
        }
        Self {
            value,
            place: self.place.clone(),
        }
    }

    pub(super) fn empty(&self) -> Self {
        Self {
            value: Value::Null,
            place: self.place.clone(),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let what = match self.get(key) {
            Some(value) => format!("`{key}` is {value}"),
            None => format!("`{key}` is missing"),
        };
        self.error(what).hint(format!("expected {expected}"))
    }

    /// An error in this file.
    pub fn error(&self, what: String) -> Error {
        Error::input(what).at(&self.place)
    }

    /// A value that is understood but not implemented.
    pub fn refuse(&self, key: &str, value: &str, why: &str) -> Error {
        self.error(format!("`{key}` = \"{value}\" is not supported"))
            .hint(why)
    }

    /// A key whose value changes a computation that is not implemented; the value is shown where it is
    /// short.
    pub fn unsupported(&self, key: &str, why: &str) -> Error {
        let value = self.value.get(key).map(ToString::to_string);
        let value = value.filter(|value| value.len() <= 60);
        let value = value.map_or(String::new(), |value| format!(" = {value}"));
        self.error(format!("`{key}`{value} is not supported"))
            .hint(why)
    }

    /// Checks that `key` is not there with null: transformers would compute with that null.
    pub fn not_null(&self, key: &str) -> Result<()> {
        match self.value.get(key) {
            Some(Value::Null) => Err(self
                .error(format!("`{key}` is null"))
                .hint("give it a value, or leave it out")),
            _ => Ok(()),
        }
    }

    fn integer(&self, key: &str) -> Option<usize> {
        let value = self.get(key)?.as_u64().filter(|n| *n < 1 << 32)?;
        Some(value as usize)
    }

    /// A positive integer, of the size of a real model's.
    pub fn usize(&self, key: &str) -> Result<usize> {
        let known = LARGEST.iter().find(|(name, _)| *name == key);
        let most = known.map_or(usize::MAX, |(_, most)| *most);
        let found = self.integer(key).filter(|n| *n > 0);
        let valid = || match found {
            Some(_) => format!("a positive integer up to {most}"),
            None => "a positive integer".to_owned(),
        };
        found
            .filter(|n| *n <= most)
            .ok_or_else(|| self.wrong(key, &valid()))
    }

    /// A finite number above 0.
    pub fn positive(&self, key: &str) -> Result<f64> {
        match self.f64(key)? {
            x if x > 0.0 => Ok(x),
            _ => Err(self.wrong(key, "a number above 0")),
        }
    }

    /// As [`positive`](Self::positive), or `default` where the key is not there.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |_| self.positive(key))
    }

    /// 0 or a positive integer, or `default` where the key is not there.
    pub fn count_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key)
            .map_or(Ok(default), |_| match self.integer(key) {
                Some(0) => Ok(0),
                Some(_) => self.usize(key),
                None => Err(self.wrong(key, "0 or a positive integer")),
            })
    }

    /// A positive integer, `None` where the key is null, or `default` where it is not there.
    pub fn usize_or_null(&self, key: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.value.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.usize(key).map(Some),
        }
    }

    /// A positive integer, or `default` where the key is not there.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |_| self.usize(key))
    }

    /// A finite number.
    pub fn f64(&self, key: &str) -> Result<f64> {
        self.get(key)
            .and_then(Value::as_f64)
            .filter(|x| x.is_finite())
            .ok_or_else(|| self.wrong(key, "a number"))
    }

    /// A finite number, or `default` where the key is not there.
    pub fn f64_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |_| self.f64(key))
    }

    /// A boolean, or `default` where the key is not there.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |value| {
            value
                .as_bool()
                .ok_or_else(|| self.wrong(key, "true or false"))
        })
    }

    /// A string, or `default` where the key is not there.
    pub fn str_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        self.get(key).map_or(Ok(default), |value| {
            value.as_str().ok_or_else(|| self.wrong(key, "a string"))
        })
    }

    /// A list of integers from 0 on; empty where the key is not there.
    pub fn integers(&self, key: &str) -> Result<Vec<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let integer = |value: &Value| value.as_u64().map(|n| n as usize);
        let list = value.as_array();
        list.and_then(|list| list.iter().map(integer).collect())
            .ok_or_else(|| self.wrong(key, "a list of integers, 0 or more"))
    }

    /// A list with one string per layer, where the key is there.
    pub fn per_layer(&self, key: &str, layers: usize) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let list: Option<Vec<_>> = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        match list {
            Some(list) if list.len() == layers => Ok(Some(list)),
            _ => Err(self.wrong(key, &format!("a list of {layers} strings, one per layer"))),
        }
    }

    /// A list of so many finite numbers above 0.
    pub fn positive_list(&self, key: &str, length: usize) -> Result<Vec<f64>> {
        let list = self.get(key).and_then(Value::as_array);
        let list: Option<Vec<f64>> = list.and_then(|list| list.iter().map(Value::as_f64).collect());
        let is_valid = |list: &Vec<f64>| {
            list.len() == length && list.iter().all(|x| x.is_finite() && *x > 0.0)
        };
        list.filter(is_valid).ok_or_else(|| {
            let valid = format!("a list of {length} numbers above 0");
            match self.get(key).and_then(Value::as_array) {
                Some(list) => self
                    .error(format!("`{key}` is a list of {}", list.len()))
                    .hint(format!("expected {valid}")),
                None => self.wrong(key, &valid),
            }
        })
    }

    /// This object with what `other` has beside it.
    pub(super) fn over(&self, other: &Self) -> Self {
        let mut value = other.value.as_object().cloned().unwrap_or_default();
        value.extend(self.value.as_object().cloned().unwrap_or_default());
        Self {
            value: Value::Object(value),
            place: self.place.clone(),
        }
    }

    /// Checks that `key`, where it is there, has the one value the family implements.
    pub fn require(&self, key: &str, only: &str) -> Result<()> {
        match self.str_or(key, only)? {
            value if value == only => Ok(()),
            value => Err(self.refuse(key, value, &format!("expo implements \"{only}\""))),
        }
    }
}
