//! A sum of losses from the tables of a config.
//!
//! Hides how `weight` is taken from among the knobs of a loss.
//!
//! *Why*: each loss refuses keys that it does not know, with the line of the key. So the weight is
//! taken out on the way, as the tables are read, and not from a copy that has no lines.

use std::cell::Cell;

use super::{Sum, Term};
use crate::loss::Loss;
use serde::Deserialize;
use serde::de::value::StringDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};

impl<'de> Deserialize<'de> for Sum {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        from.deserialize_map(Terms)
    }
}

struct Terms;

impl<'de> Visitor<'de> for Terms {
    type Value = Sum;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a table of losses")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Sum, A::Error> {
        let mut terms = Vec::new();
        while let Some(name) = map.next_key::<Name>()? {
            terms.push(map.next_value_seed(name)?);
        }
        match terms.is_empty() {
            true => Err(de::Error::custom("no loss")),
            false => Ok(Sum { terms }),
        }
    }
}

/// The name of a loss, whose knobs it then reads.
struct Name(&'static str);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        match Loss::default_of(&name) {
            Ok(loss) => Ok(Self(loss.name())),
            Err(_) => Err(de::Error::unknown_variant(&name, Loss::NAMES)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Term;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Term, D::Error> {
        let weight = Cell::new(1.0);
        let knobs = BesideWeight {
            inner: from,
            weight: &weight,
        };
        let loss = Loss::deserialize_knobs(self.0, knobs)?;
        let weight = weight.get();
        Ok(Term { weight, loss })
    }
}

/// Something with knobs and perhaps a `weight`, which it takes away; the rest passes through it, so
/// that errors still know their line.
struct BesideWeight<'a, T> {
    inner: T,
    weight: &'a Cell<f64>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for BesideWeight<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, to: V) -> std::result::Result<V::Value, D::Error> {
        self.inner.deserialize_map(BesideWeight {
            inner: to,
            weight: self.weight,
        })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for BesideWeight<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<V::Value, A::Error> {
        self.inner.visit_map(BesideWeight {
            inner: map,
            weight: self.weight,
        })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for BesideWeight<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        mut seed: K,
    ) -> std::result::Result<Option<K::Value>, A::Error> {
        loop {
            seed = match self.inner.next_key_seed(Key(seed))? {
                None => return Ok(None),
                Some(Found::Knob(knob)) => return Ok(Some(knob)),
                Some(Found::Weight(seed)) => {
                    self.weight.set(self.inner.next_value()?);
                    seed
                }
            };
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> std::result::Result<S::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

struct Key<K>(K);

enum Found<V, K> {
    Knob(V),
    /// The seed is still unused.
    Weight(K),
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<K> {
    type Value = Found<K::Value, K>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        from: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        let key = String::deserialize(from)?;
        if key == "weight" {
            return Ok(Found::Weight(self.0));
        }
        let key: StringDeserializer<D::Error> = key.into_deserializer();
        self.0.deserialize(key).map(Found::Knob)
    }
}
