//! The model families: each maps a `config.json` to an [`Architecture`].

mod experts;
mod gemma2;
mod gemma3;
mod gemma3_text;
mod gpt2;
mod gpt_neox;
mod granite;
mod keys;
mod layers;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod olmo3;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod smollm3;

use self::keys::Key;
use super::arch::{Architecture, ConfigJson};
use crate::error::Result;

/// One family of models.
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The class of transformers, for the `architectures` of `config.json`.
    pub class: &'static str,
    /// The shape of the model a config describes.
    pub architecture: fn(&ConfigJson) -> Result<Architecture>,
    /// What becomes of the keys of `config.json`, beside those that all families share.
    pub keys: &'static [(&'static str, Key)],
    /// Suffixes of tensor names in old checkpoints that are skipped.
    pub ignored: &'static [&'static str],
    /// Other name prefixes in files: (ours, theirs).
    pub spelling: &'static [(&'static str, &'static str)],
    /// Name prefixes of tensors outside the text decoder; they are copied unchanged into saved models.
    pub kept: &'static [&'static str],
}

/// Every family. Adding one is a file and a row.
pub const FAMILIES: &[Family] = &[
    gemma2::FAMILY,
    gemma3::FAMILY,
    gemma3_text::FAMILY,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    granite::FAMILY,
    llama::FAMILY,
    mistral::FAMILY,
    mixtral::FAMILY,
    olmo2::FAMILY,
    olmo3::FAMILY,
    phi3::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3_moe::FAMILY,
    smollm3::FAMILY,
];

/// The family of a config.
///
/// # Errors
/// If there is no such family, or a key rules the model out.
pub fn family(config: &ConfigJson) -> Result<&'static Family> {
    let model_type = config.str_or("model_type", "")?;
    let family = FAMILIES
        .iter()
        .find(|family| family.model_type == model_type)
        .ok_or_else(|| {
            let valid: Vec<_> = FAMILIES.iter().map(|family| family.model_type).collect();
            config
                .error(format!("model_type \"{model_type}\" is not supported"))
                .hint(format!("valid: {}", valid.join(", ")))
        })?;
    keys::check(family, config)?;
    Ok(family)
}
