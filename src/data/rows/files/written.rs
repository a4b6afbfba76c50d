//! How files are written in a configuration.
//!
//! *Why*: an untagged enum says of a wrong key only that nothing fits; these say which key is wrong.

use super::{Files, Part, Weight};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// What stands in a configuration.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Written {
    One(WrittenPart),
    List(Vec<WrittenPart>),
}

/// A path, with a slice or without, or a table of it and its weight.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum WrittenPart {
    Path(String),
    Weighted(Table),
}

/// A path and its weight.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    pub path: String,
    #[serde(default)]
    pub weight: Weight,
}

impl<'de> Deserialize<'de> for WrittenPart {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = WrittenPart;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a path, or { path = ..., weight = ... }")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> std::result::Result<WrittenPart, E> {
                Ok(WrittenPart::Path(path.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                map: A,
            ) -> std::result::Result<WrittenPart, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(WrittenPart::Weighted(table))
            }
        }
        from.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> std::result::Result<Written, E> {
                Ok(Written::One(WrittenPart::Path(path.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                map: A,
            ) -> std::result::Result<Written, A::Error> {
                let part = WrittenPart::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Written::One(part))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                list: A,
            ) -> std::result::Result<Written, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Written::List)
            }
        }
        from.deserialize_any(OneOrMany)
    }
}

impl WrittenPart {
    fn part(&self) -> std::result::Result<Part, String> {
        match self {
            Self::Path(path) => path.parse(),
            Self::Weighted(table) => Ok(Part {
                weight: table.weight,
                ..table.path.parse()?
            }),
        }
    }
}

impl From<&Part> for WrittenPart {
    fn from(part: &Part) -> Self {
        let path = part.to_string();
        match part.weight {
            weight if weight.is_one() => Self::Path(path),
            weight => Self::Weighted(Table { path, weight }),
        }
    }
}

impl TryFrom<Written> for Files {
    type Error = String;

    fn try_from(written: Written) -> std::result::Result<Self, String> {
        let (parts, is_list) = match written {
            Written::One(part) => (vec![part], false),
            Written::List(parts) => (parts, true),
        };
        if parts.is_empty() {
            return Err("the list of files is empty".into());
        }
        let parts = parts
            .iter()
            .map(WrittenPart::part)
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self { parts, is_list })
    }
}

impl From<Files> for Written {
    fn from(files: Files) -> Self {
        let mut parts: Vec<WrittenPart> = files.parts.iter().map(WrittenPart::from).collect();
        match (files.is_list, parts.pop()) {
            (false, Some(part)) => Self::One(part),
            (_, last) => {
                parts.extend(last);
                Self::List(parts)
            }
        }
    }
}
