//! JSON in which no object has a key twice.
//!
//! *Why*: of two values under one key most parsers take the last, some the first, and whoever checked
//! the other one checked nothing. The format leaves it open, so here it is an error.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses one JSON text.
///
/// # Errors
/// With line and column; also for a key that an object has twice, and for more than 128 levels.
pub fn parse(text: &str) -> serde_json::Result<Value> {
    let mut from = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut from)?;
    from.end()?;
    Ok(value)
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key {key:?} is there twice"
                )));
            }
            object.insert(key, fields.next_value_seed(Self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_the_library_reads() {
        for text in [
            r#"{"b": [1, -2, 3.5, 1e300, true, null], "a": {"x": "ü\n", "": {}}}"#,
            "18446744073709551615",
            "0.1",
            " [] ",
        ] {
            let known: Value = serde_json::from_str(text).unwrap();
            let own = parse(text).unwrap();
            assert_eq!(own.to_string(), known.to_string());
        }
        for text in ["", "{", "[1,]", "1 2", "1e999", "\"\u{1}\"", "nan"] {
            let known = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(parse(text).unwrap_err().to_string(), known.to_string());
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_at_its_place() {
        assert_eq!(
            parse("{\"a\": 1,\n \"b\": {\"c\": 1, \"\\u0063\": 2}}")
                .unwrap_err()
                .to_string(),
            "the key \"c\" is there twice at line 2 column 23"
        );
        assert!(parse(r#"[{"a": 1}, {"a": 2}]"#).is_ok());
    }
}
