//! Floating-point numbers in JSON, including those that are not finite.

use serde::{Deserialize, Deserializer};

/// A number, where null, as `serde_json` writes NaN and infinity, is NaN.
pub fn or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The value of an absent number.
pub fn nan() -> f64 {
    f64::NAN
}

/// Numbers that are written by name if they are not finite: `"NaN"`, `"inf"`, `"-inf"`.
pub mod by_name {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Name(String),
        Null(()),
    }

    /// Writes a number or its name.
    pub fn serialize<S: Serializer>(x: &f64, to: S) -> Result<S::Ok, S::Error> {
        match x.is_finite() {
            true => to.serialize_f64(*x),
            false => to.serialize_str(&x.to_string()),
        }
    }

    /// Reads a number or its name; anything else is NaN.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(match Written::deserialize(from)? {
            Written::Number(x) => x,
            Written::Name(name) => name.parse().unwrap_or(f64::NAN),
            Written::Null(()) => f64::NAN,
        })
    }
}
