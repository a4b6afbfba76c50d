//! Responses as AlpacaEval reads the outputs of a model: a JSON list of
//! `{"instruction", "output", "generator"}`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::file::responses;
use crate::data::Prompt;
use crate::error::{Error, Result};
use crate::io::output::Output;
use crate::io::untrusted;

/// Writes the first response to each prompt, in the order of prompts, from the sample file `from`, whose
/// prompts these are.
///
/// # Errors
/// If a prompt has no response there yet.
pub fn write_alpaca_eval(
    prompts: &[Prompt],
    from: &Path,
    generator: &str,
    out: &Output,
) -> Result<()> {
    let mut first: HashMap<String, String> = HashMap::new();
    for row in responses(from)? {
        let (prompt, index, response) = row?;
        if index == 0 {
            first.insert(prompt, response);
        }
    }
    let mut list = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let Some(output) = first.get(&prompt.text) else {
            return Err(Error::input("a prompt has no response yet")
                .hint("draw the rest first")
                .at(from.display()));
        };
        // As text goes to a judge: a response often begins with the space that parts it from its prompt.
        list.push(json!({
            "instruction": prompt.instruction,
            "output": output.trim(),
            "generator": generator,
        }));
    }
    let text = serde_json::to_string_pretty(&list).map_err(|e| Error::failed(e.to_string()))?;
    out.write_bytes(text.as_bytes())
}

/// Whether a file is such a list of this generator's responses.
pub fn is_alpaca_eval(path: &Path, generator: &str) -> bool {
    let is_own = |entry: &Value| {
        let is_text = |key: &str| entry[key].is_string();
        is_text("instruction") && is_text("output") && entry["generator"] == generator
    };
    let list = untrusted::json(path, untrusted::INDEX).ok();
    let list = list.as_ref().and_then(Value::as_array);
    list.is_some_and(|list| list.iter().all(is_own))
}
