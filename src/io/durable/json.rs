//! JSON files.

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Indented JSON, with a newline at its end. A zero has no sign.
pub fn json_text(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(&unsigned_zeros(value)?);
    Ok(text.map_err(failed)? + "\n")
}

/// JSON on one line, with a newline at its end. A zero has no sign.
pub fn json_line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(&unsigned_zeros(value)?);
    Ok(text.map_err(failed)? + "\n")
}

fn failed(error: serde_json::Error) -> Error {
    Error::failed(error.to_string())
}

/// The value, with 0 in place of -0, which says nothing and puzzles readers.
fn unsigned_zeros(value: &impl Serialize) -> Result<Value> {
    let mut value = serde_json::to_value(value).map_err(failed)?;
    clear(&mut value);
    Ok(value)
}

fn clear(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() && number.as_f64() == Some(0.0) => {
            *value = 0.0.into();
        }
        Value::Array(values) => values.iter_mut().for_each(clear),
        Value::Object(map) => map.values_mut().for_each(clear),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_zero_has_no_sign_and_everything_else_stays() {
        let value = json!({"b": [-0.0, 0, -1.5e-300, null], "a": {"x": -0.0}});
        let line = "{\"b\":[0.0,0,-1.5e-300,null],\"a\":{\"x\":0.0}}\n";
        assert_eq!(json_line(&value).unwrap(), line);
        assert!(!json_text(&value).unwrap().contains("-0.0"));
        assert_eq!(json_line(&f64::NAN).unwrap(), "null\n");
    }
}
