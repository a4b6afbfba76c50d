//! `metrics.jsonl`.

use serde_json::{Map, Value};

/// A line of `metrics.jsonl`: metrics by name, null where one is not finite. Which there are depends on
/// the loss, so this is a map; `step` is always there.
pub type Record = Map<String, Value>;

/// The optimizer step of a line; 0 if it names none.
pub fn step(line: &Record) -> u64 {
    line.get("step").and_then(Value::as_u64).unwrap_or(0)
}

/// The points (step, value) of a metric in lines that have it; null is NaN.
pub fn points(lines: &[Record], name: &str) -> Vec<(f64, f64)> {
    let with = lines.iter().filter_map(|r| Some((step(r), r.get(name)?)));
    with.map(|(step, value)| (step as f64, value.as_f64().unwrap_or(f64::NAN)))
        .collect()
}
