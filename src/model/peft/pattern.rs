//! Matching of module names, by PEFT's rules.
//!
//! *Why* a regex crate without look-around: patterns come from files of others, and this one takes time
//! linear in the length of a name, whatever the pattern.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use regex::{Regex, RegexBuilder};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most bytes of a compiled regex.
const LARGEST: usize = 1 << 20;
/// The most regexes of one table.
const MOST: usize = 256;

/// Names of modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "one string, or a list of names")]
pub enum Targets {
    /// A shorthand or a regex.
    One(String),
    /// Names, each whole or from a dot on.
    List(Vec<String>),
}

/// Values by pattern of names, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Patterns<T>(pub Vec<(String, T)>);

/// Which names a regex or a list selects.
#[derive(Debug)]
pub(super) enum Matcher {
    /// The whole name matches.
    Regex(Box<Regex>),
    /// The whole name, or what follows one of its dots, is listed.
    List(BTreeSet<String>),
}

impl Matcher {
    /// # Errors
    /// If a list is empty or has an empty name, or a regex cannot be read.
    pub fn new(targets: &Targets) -> Result<Self> {
        match targets {
            Targets::One(pattern) => Ok(Self::Regex(Box::new(whole(pattern)?))),
            Targets::List(names) if names.is_empty() => {
                Err(Error::input("the list is empty").hint("leave it out for the default"))
            }
            Targets::List(names) if names.iter().any(String::is_empty) => {
                Err(Error::input("the list has an empty name"))
            }
            Targets::List(names) => Ok(Self::List(names.iter().cloned().collect())),
        }
    }

    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(name),
            Self::List(_) => self.entry(name).is_some(),
        }
    }

    /// Whether a list has the whole name.
    pub fn has_whole(&self, name: &str) -> bool {
        matches!(self, Self::List(names) if names.contains(name))
    }

    /// The longest name of a list that selects this one.
    pub fn entry(&self, name: &str) -> Option<&str> {
        match self {
            Self::Regex(_) => None,
            Self::List(names) => {
                let mut ends = ends(name);
                ends.find_map(|end| names.get(end).map(String::as_str))
            }
        }
    }
}

/// The name, and what follows each of its dots, the longest first.
fn ends(name: &str) -> impl Iterator<Item = &str> {
    let after = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
    std::iter::once(name).chain(after)
}

/// `rank_pattern` or `alpha_pattern`, to be looked up.
#[derive(Debug)]
pub(super) struct Table<'a, T> {
    keys: Vec<NamePattern>,
    values: &'a [(String, T)],
}

impl<'a, T: Copy> Table<'a, T> {
    /// # Errors
    /// If a key is empty or no regex that can be read, or there are too many.
    pub fn new(patterns: &'a Patterns<T>) -> Result<Self> {
        let keys = patterns.0.iter().map(|(key, _)| NamePattern::new(key));
        let keys: Vec<NamePattern> = keys.collect::<Result<_>>()?;
        let regexes = keys
            .iter()
            .filter(|key| matches!(key, NamePattern::Regex(_)));
        match regexes.count() {
            count if count > MOST => Err(Error::input(format!("{count} regexes"))
                .hint(format!("at most {MOST}; plain names are not counted"))),
            _ => Ok(Self {
                keys,
                values: &patterns.0,
            }),
        }
    }

    /// The place of the first pattern that matches any of the names of a module.
    pub fn position(&self, names: &[&str]) -> Option<usize> {
        (0..self.keys.len()).find(|&key| self.matches(key, names))
    }

    /// Whether a pattern, by its place, matches any of the names of a module.
    pub fn matches(&self, key: usize, names: &[&str]) -> bool {
        names.iter().any(|name| self.keys[key].matches(name))
    }

    /// The value of the first pattern that matches.
    pub fn get(&self, names: &[&str]) -> Option<T> {
        self.position(names).map(|key| self.values[key].1)
    }

    /// Each pattern as it is written.
    pub fn written(&self, key: usize) -> &str {
        &self.values[key].0
    }
}

/// A key: `(.*\.)?(key)$`.
#[derive(Debug)]
enum NamePattern {
    /// A key of letters, digits, `_` and `.`, which is read as a name.
    Name(String),
    /// Any other key.
    Regex(Box<Regex>),
}

impl NamePattern {
    fn new(key: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if key.is_empty() {
            return Err(Error::input("an empty pattern"));
        }
        Ok(match key.chars().all(plain) {
            true => Self::Name(key.to_owned()),
            false => {
                compile(key)?;
                Self::Regex(Box::new(compile(&format!(r"\A(?:.*\.)?(?:{key})\z"))?))
            }
        })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(key) => ends(name).any(|end| end == key),
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

/// A regex that must match a whole name, as Python's `re.fullmatch` does.
fn whole(pattern: &str) -> Result<Regex> {
    // Alone first: a stray parenthesis must not be closed by those around it.
    compile(pattern)?;
    compile(&format!(r"\A(?:{pattern})\z"))
}

fn compile(pattern: &str) -> Result<Regex> {
    // Operators of sets here, and plain characters in Python.
    let set = ["[[", "&&", "--", "~~"].into_iter();
    if let Some(operator) = set.into_iter().find(|set| pattern.contains(*set)) {
        return Err(
            Error::input(format!("{operator} in the regex \"{pattern}\""))
                .hint("programs read it differently: escape the second character"),
        );
    }
    let regex = RegexBuilder::new(pattern).size_limit(LARGEST).build();
    regex.map_err(|error| {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim().to_owned();
        let why = why.trim_start_matches("error: ");
        Error::input(format!(
            "\"{pattern}\" is no regex that is read here: {why}"
        ))
        .hint("a list of names, such as [\"q_proj\", \"v_proj\"], needs no regex")
    })
}

impl<T> Patterns<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize> Serialize for Patterns<T> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (pattern, value) in &self.0 {
            map.serialize_entry(pattern, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Vec<(String, T)>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a table of patterns with a number each")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut from: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(pattern) = from.next_entry()? {
                    list.push(pattern);
                }
                Ok(list)
            }
        }
        from.deserialize_map(InOrder(PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str) -> Result<Matcher> {
        Matcher::new(&Targets::One(pattern.into()))
    }

    #[test]
    fn a_regex_matches_whole_names_and_a_list_their_ends() {
        let name = "model.layers.1.self_attn.q_proj";
        for (pattern, want) in [
            (r".*\.q_proj", true),
            ("q_proj", false),
            (r".*layers\.(0|1)\..*(q|v)_proj", true),
            (r".*|x", true),
            (r"model|q_proj", false),
        ] {
            assert_eq!(regex(pattern).unwrap().matches(name), want, "{pattern}");
        }
        for (entry, want) in [
            ("q_proj", true),
            ("self_attn.q_proj", true),
            (name, true),
            ("proj", false),
            ("attn.q_proj", false),
            ("model", false),
        ] {
            let list = Matcher::new(&Targets::List(vec![entry.into()])).unwrap();
            assert_eq!(list.matches(name), want, "{entry}");
        }
    }

    #[test]
    fn a_key_of_a_table_matches_from_a_dot_on() {
        let name = "model.layers.11.mlp.up_proj";
        for (key, want) in [
            ("up_proj", true),
            ("mlp.up_proj", true),
            ("proj", false),
            ("1.mlp.up_proj", false),
            (r"layers\.\d+\.mlp\.up_proj", true),
            (r"^model\.layers.*", true),
            ("q_proj|up_proj", true),
            ("mlp", false),
        ] {
            assert_eq!(NamePattern::new(key).unwrap().matches(name), want, "{key}");
        }
    }

    #[test]
    fn what_only_python_reads_is_refused() {
        for pattern in [
            r"(?!x)q_proj",
            r"(a)\1",
            r"(?<=a)b",
            r"a\Z",
            "a)(b",
            "(",
            "x[[a]",
        ] {
            let said = regex(pattern).unwrap_err().to_string();
            assert!(said.contains(pattern), "{said}");
        }
        let said = regex(r".*(?!k_proj)").unwrap_err().to_string();
        assert!(said.contains("look-around"), "{said}");
        let said = regex("(a{1000}){1000}").unwrap_err().to_string();
        assert!(said.contains("size limit"), "{said}");
    }
}
