//! The tokens that end a response, by the files of a model.
//!
//! Hides which of four files says it.

use crate::error::{Error, Result};
use crate::io::untrusted::Document;
use serde_json::Value;
use std::path::Path;

/// The end tokens, and the name of the file that has them: the first of `configs` that has `eos_token_id`, else
/// the one that has `eos_token`.
pub(super) fn end_tokens(
    definition: &Path,
    configs: &[Document],
    tokenizer_config: &Document,
    inner: &tokenizers::Tokenizer,
) -> Result<(Vec<u32>, String)> {
    let key = "eos_token_id";
    let named = |document: &Document| {
        let name = document.path().file_name().unwrap_or_default();
        name.display().to_string()
    };
    for document in configs {
        let Some(config) = document.optional_json_object()? else {
            continue;
        };
        let ids = match &config[key] {
            Value::Null => continue,
            Value::Array(ids) => ids.iter().map(token_id).collect(),
            id => token_id(id).map(|id| vec![id]),
        };
        let ids: Vec<u32> = ids.ok_or_else(|| {
            Error::input(format!("`{key}` is {}", config[key]))
                .hint("it must be a token id or a list of them")
                .at(document.path().display())
        })?;
        if !ids.is_empty() {
            return Ok((ids, named(document)));
        }
    }
    let config = tokenizer_config.optional_json_object()?.unwrap_or_default();
    let token = &config["eos_token"];
    let Some(token) = token.as_str().or_else(|| token["content"].as_str()) else {
        return Err(Error::input("no file of the model names an end token")
            .hint(format!(
                "set `{key}` in generation_config.json, or `eos_token` in tokenizer_config.json"
            ))
            .at(definition.display()));
    };
    let id = inner.token_to_id(token).ok_or_else(|| {
        Error::input(format!("`eos_token` {token:?} is not in the vocabulary"))
            .hint(format!("set `{key}` in generation_config.json"))
            .at(tokenizer_config.path().display())
    })?;
    Ok((vec![id], named(tokenizer_config)))
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
