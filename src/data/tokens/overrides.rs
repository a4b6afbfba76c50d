//! The small files of a model as a configuration wants them: another chat template, other end tokens.
//!
//! *Why*: what is trained with is what a saved model carries. Both are read from the model's files, so it is
//! those that are changed, once, before anything reads them.

use super::Tokenizer;
use crate::data::chat::template_of;
use crate::data::config::{ChatConfig, TokenName};
use crate::error::{Error, Result, nearest};
use crate::io::model_dir::{
    CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, ModelFiles, SPECIAL_TOKENS_MAP, TOKENIZER,
    TOKENIZER_CONFIG,
};
use crate::io::untrusted::{self, Document};
use serde_json::{Map, Value, json};

impl Tokenizer {
    /// The tokenizer of a model, and its files, with the chat template and the end tokens that `config`
    /// names.
    ///
    /// # Errors
    /// As of [`of`](Self::of); if there is no such template, or an end token is not one token of the
    /// vocabulary; with the key.
    pub fn with(files: &ModelFiles, config: &ChatConfig) -> Result<(Self, ModelFiles)> {
        let mut files = files.clone();
        if let Some(name) = &config.template {
            let template = template_of(&files, name);
            let template = template.map_err(|error| error.at_key("data.chat_template"))?;
            files.replace(CHAT_TEMPLATE, template);
            // Readers of the older place would get another one.
            edit(&mut files, TOKENIZER_CONFIG, |fields| {
                fields.shift_remove("chat_template");
            })?;
        }
        if config.eos_token.is_some() || !config.eot_tokens.is_empty() {
            set_ends(&mut files, config)?;
        }
        Ok((Self::of(&files)?, files))
    }
}

/// Writes the end tokens where `transformers` and this program look for them.
fn set_ends(files: &mut ModelFiles, config: &ChatConfig) -> Result<()> {
    let none = Value::Object(Map::new());
    let vocabulary = vocabulary(files)?;
    let first = config
        .eos_token
        .iter()
        .map(|token| ("data.eos_token", token));
    let further = config
        .eot_tokens
        .iter()
        .map(|token| ("data.eot_tokens", token));
    let resolve = |(key, token)| resolve(&vocabulary, token).map_err(|error| error.at_key(key));
    let first: Vec<u32> = first.map(resolve).collect::<Result<_>>()?;
    let further: Vec<u32> = further.map(resolve).collect::<Result<_>>()?;
    // A model that names none has those of the configuration.
    let own = match Tokenizer::of(files) {
        Ok(tokenizer) => tokenizer.ends().to_vec(),
        Err(error) if first.is_empty() => return Err(error),
        Err(_) => Vec::new(),
    };
    let mut ends: Vec<u32> = Vec::new();
    for id in first.iter().chain(&own).chain(&further) {
        if !ends.contains(id) {
            ends.push(*id);
        }
    }
    let of_model = files.get(CONFIG).optional_json_object()?.unwrap_or(none);
    let generation = files.get(GENERATION_CONFIG);
    let mut generation = generation.optional_json_object()?.unwrap_or_else(|| {
        // What transformers takes from there while there is no such file.
        let kept = ["bos_token_id", "pad_token_id"].iter();
        let kept = kept.filter_map(|key| Some(((*key).to_owned(), of_model.get(key)?.clone())));
        Value::Object(kept.collect())
    });
    generation["eos_token_id"] = json!(ends);
    replace(files, GENERATION_CONFIG, &generation);
    let Some(id) = first.first() else {
        return Ok(());
    };
    let text = vocabulary.token(*id).unwrap_or_default();
    for name in [TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP] {
        edit(files, name, |fields| {
            if name == TOKENIZER_CONFIG || fields.contains_key("eos_token") {
                fields.insert("eos_token".into(), text.clone().into());
            }
        })?;
    }
    Ok(())
}

/// A tokenizer for its vocabulary alone.
fn vocabulary(files: &ModelFiles) -> Result<Tokenizer> {
    let config = document(files, GENERATION_CONFIG, &json!({"eos_token_id": 0}));
    let definition = files.get(TOKENIZER);
    Tokenizer::from_documents(&definition, &[config], &files.get(TOKENIZER_CONFIG))
}

fn resolve(vocabulary: &Tokenizer, token: &TokenName) -> Result<u32> {
    match token {
        TokenName::Id(id) => match vocabulary.token(*id) {
            Some(_) => Ok(*id),
            None => Err(
                Error::input(format!("{id} is not a token id of the vocabulary"))
                    .hint("name the token as a string"),
            ),
        },
        TokenName::Text(text) => {
            let special = vocabulary.special_tokens();
            let hint = || nearest(text, special.iter().map(String::as_str));
            let Some(id) = vocabulary.id(text) else {
                return Err(Error::input(format!("{text:?} is not in the vocabulary")).hint(hint()));
            };
            match vocabulary.encode(text)? == [id] {
                true => Ok(id),
                false => Err(Error::input(format!(
                    "{text:?} is not one token where it stands in a text"
                ))
                .hint(hint())),
            }
        }
    }
}

/// Changes a file that holds an object, if there is one.
fn edit(
    files: &mut ModelFiles,
    name: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<()> {
    if let Some(mut value) = files.get(name).optional_json_object()?
        && let Some(fields) = value.as_object_mut()
    {
        let before = fields.clone();
        change(fields);
        if *fields != before {
            replace(files, name, &value);
        }
    }
    Ok(())
}

fn replace(files: &mut ModelFiles, name: &str, value: &Value) {
    let document = document(files, name, value);
    files.replace(name, document);
}

fn document(files: &ModelFiles, name: &str, value: &Value) -> Document {
    let text = format!("{value:#}\n");
    let path = files.directory().join(name);
    Document::of(&path, untrusted::CONFIG, text.into_bytes())
}
