//! What becomes of each key of `config.json`.
//!
//! *Why*: transformers hands every key to its model classes, and passes over those that the class does
//! not know. A key that changes the computation elsewhere says that the weights were trained by
//! something else, so such a key is refused unless its value changes nothing. Keys of no list are
//! passed over, as there: models carry notes of all kinds.

use serde_json::Value;

use super::Family;
use crate::error::Result;
use crate::model::arch::ConfigJson;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The architecture is made from it.
    Read,
    /// No log-prob depends on it: ids, dropout and other things of training, defaults of generation, names.
    /// Weights are read in the dtype that they are stored in.
    Ignored,
    /// Taken if it is null, false, 0 or empty.
    Off(&'static str),
    /// Taken if it is not there, or true.
    On(&'static str),
    /// How the weights are quantized: taken if they are not, or are bitsandbytes' NF4.
    Quantization,
    /// A factor, taken if it is null or 1.
    One(&'static str),
}

/// Of a family that always has norms on queries and keys.
pub(super) const QK_NORM: &str = "this family always has norms on queries and keys";

/// Of a family without windows.
pub(super) const NO_WINDOW: &str =
    "this family has full attention in every layer; remove the key to train so";

const OTHER_CLASS: &str = "the weights are of another model class than this model_type's";
const QUANTIZED: &str =
    "of quantized weights expo reads bitsandbytes' nf4; or take the model they were made from";
const SCORES: &str = "this family's attention has none, so the weights are of another model";
const LOGITS: &str = "this family's logits have none, so the weights are of another model";
const FACTOR: &str = "this family has no such factor, so the weights are of another model";
const EXPERTS: &str = "this family has no such experts, so the weights are of another model";
const CAUSAL: &str = "expo trains causal models";
const PARTS: &str = "of multimodal models expo trains only model_type gemma3 (its text decoder)";
const LAYERS: &str =
    "this family has no such setting per layer, so the weights are of another model";

/// What all families have in common. A family's own list goes before it: a key that stands in both is
/// what the family says.
pub const SHARED: &[(&str, Key)] = &[
    ("architectures", Key::Read),
    ("initializer_range", Key::Read),
    ("max_position_embeddings", Key::Read),
    ("model_type", Key::Read),
    ("original_max_position_embeddings", Key::Read),
    ("partial_rotary_factor", Key::Read),
    ("rope_parameters", Key::Read),
    ("rope_scaling", Key::Read),
    ("tie_word_embeddings", Key::Read),
    ("vocab_size", Key::Read),
    ("_name_or_path", Key::Ignored),
    ("attention_dropout", Key::Ignored),
    ("attn_implementation", Key::Ignored),
    ("bos_token_id", Key::Ignored),
    ("cache_implementation", Key::Ignored),
    ("chunk_size_feed_forward", Key::Ignored),
    ("classifier_dropout", Key::Ignored),
    ("dtype", Key::Ignored),
    ("eos_token_id", Key::Ignored),
    ("gradient_checkpointing", Key::Ignored),
    ("hidden_dropout", Key::Ignored),
    ("id2label", Key::Ignored),
    ("is_decoder", Key::Ignored),
    ("label2id", Key::Ignored),
    ("output_attentions", Key::Ignored),
    ("output_hidden_states", Key::Ignored),
    ("pad_token_id", Key::Ignored),
    ("pretraining_tp", Key::Ignored),
    ("return_dict", Key::Ignored),
    ("task_specific_params", Key::Ignored),
    ("torch_dtype", Key::Ignored),
    ("transformers_version", Key::Ignored),
    ("use_cache", Key::Ignored),
    ("add_cross_attention", Key::Off(CAUSAL)),
    ("alibi", Key::Off(SCORES)),
    ("attention_chunk_size", Key::Off(SCORES)),
    ("attention_multiplier", Key::One(FACTOR)),
    ("attn_logit_softcapping", Key::Off(SCORES)),
    (
        "attribute_map",
        Key::Off("no key may take the place of another one"),
    ),
    ("audio_config", Key::Off(PARTS)),
    (
        "auto_map",
        Key::Off(
            "the model has code of its own, which expo does not run; remove the key to train what transformers computes without that code",
        ),
    ),
    ("clip_qkv", Key::Off(SCORES)),
    ("compression_config", Key::Off(QUANTIZED)),
    ("cross_attention_hidden_size", Key::Off(CAUSAL)),
    (
        "dual_chunk_attention_config",
        Key::Off(
            "expo implements full and sliding attention; remove the key to train with full attention, as transformers does",
        ),
    ),
    ("embedding_multiplier", Key::One(FACTOR)),
    ("final_logit_softcapping", Key::Off(LOGITS)),
    ("fusion_config", Key::Off(OTHER_CLASS)),
    ("is_causal", Key::On(CAUSAL)),
    ("is_encoder_decoder", Key::Off(CAUSAL)),
    ("kv_sharing_modes", Key::Off(LAYERS)),
    ("logit_scale", Key::One(FACTOR)),
    ("logits_scaling", Key::One(FACTOR)),
    ("n_routed_experts", Key::Off(EXPERTS)),
    ("no_rope_layers", Key::Off(LAYERS)),
    ("num_experts", Key::Off(EXPERTS)),
    ("num_local_experts", Key::Off(EXPERTS)),
    ("per_layer_config", Key::Off(LAYERS)),
    ("pruned_heads", Key::Off(LAYERS)),
    ("qk_layernorm", Key::Off(SCORES)),
    ("quantization", Key::Off(QUANTIZED)),
    ("quantization_config", Key::Quantization),
    ("query_pre_attn_scalar", Key::Off(SCORES)),
    ("residual_multiplier", Key::One(FACTOR)),
    (
        "rope_interleaved",
        Key::Off("expo rotates halves of heads, as transformers does in this family"),
    ),
    (
        "rope_traditional",
        Key::Off("expo rotates halves of heads, as transformers does in this family"),
    ),
    ("scale_attn_weights", Key::On(SCORES)),
    ("sub_configs", Key::Off(PARTS)),
    ("text_config", Key::Off(PARTS)),
    (
        "transformers_weights",
        Key::Off("the weights are model.safetensors, or what model.safetensors.index.json names"),
    ),
    ("use_alibi", Key::Off(SCORES)),
    ("use_bidirectional_attention", Key::Off(CAUSAL)),
    (
        "use_mrope",
        Key::Off("expo implements positions of text, not of images and video"),
    ),
    ("use_qk_norm", Key::Off(SCORES)),
    ("vision_config", Key::Off(PARTS)),
];

/// What becomes of each key: the family's own, then those of [`SHARED`] that the family has no word on.
fn keys(family: &Family) -> impl Iterator<Item = &'static (&'static str, Key)> {
    let own = family.keys;
    let is_own = move |name: &str| own.iter().any(|(other, _)| *other == name);
    let shared = SHARED.iter().filter(move |(name, _)| !is_own(name));
    own.iter().chain(shared)
}

/// Checks what no architecture has a place for.
pub(super) fn check(family: &Family, config: &ConfigJson) -> Result<()> {
    architectures(family, config)?;
    for (name, key) in keys(family) {
        let value = config.value.get(name).unwrap_or(&Value::Null);
        let (taken, why) = match key {
            Key::Read | Key::Ignored => continue,
            Key::Off(why) => (is_off(value), why),
            Key::On(why) => (config.value.get(name).is_none() || *value == true, why),
            Key::Quantization => match quantization(value) {
                Some(other) => {
                    let what = format!("`{name}`: quantized weights of {other} are not supported");
                    return Err(config.error(what).hint(QUANTIZED));
                }
                None => continue,
            },
            Key::One(why) => (value.is_null() || value.as_f64() == Some(1.0), why),
        };
        if !taken {
            return Err(config.unsupported(name, why));
        }
    }
    Ok(())
}

/// What weights are quantized with, unless it is nothing or bitsandbytes' NF4.
fn quantization(value: &Value) -> Option<String> {
    if is_off(value) {
        return None;
    }
    // transformers did not always name it.
    let method = value["quant_method"].as_str().unwrap_or("bitsandbytes");
    let kind = value["bnb_4bit_quant_type"].as_str().unwrap_or("fp4");
    match (method, value["load_in_4bit"] == true, kind) {
        ("bitsandbytes", true, "nf4") => None,
        ("bitsandbytes", true, other) => Some(format!("bitsandbytes' {other}")),
        ("bitsandbytes", false, _) => Some("bitsandbytes' int8".to_owned()),
        (other, ..) => Some(other.to_owned()),
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(x) => x.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

/// The class that the weights are of, where the config names any, must be the family's. Llama's first
/// models spelt it in other letters.
fn architectures(family: &Family, config: &ConfigJson) -> Result<()> {
    let names = match config.value.get("architectures") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(names)) if names.is_empty() => return Ok(()),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(_) => Vec::new(),
    };
    let of_family = |name: &&str| name.eq_ignore_ascii_case(family.class);
    match names.iter().any(of_family) {
        true => Ok(()),
        false => Err(config.unsupported(
            "architectures",
            &format!(
                "expo trains {} of model_type \"{}\"",
                family.class, family.model_type
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::family::FAMILIES;

    #[test]
    fn every_key_of_the_fixtures_has_its_place_in_a_list() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let names = [
            "gemma2",
            "gemma3",
            "gemma3-multimodal",
            "gpt2",
            "granite",
            "llama",
            "mistral",
            "neox",
            "olmo2",
            "olmo3",
            "phi3",
            "qwen2",
            "qwen3",
            "smollm3",
        ];
        for name in names {
            for file in ["config.json", "config_v4_style.json"] {
                let path = fixtures.join(name).join(file);
                if !path.exists() {
                    continue;
                }
                let config = ConfigJson::open(&path).unwrap();
                let family = super::super::family(&config).unwrap();
                for key in config.value.as_object().unwrap().keys() {
                    assert!(keys(family).any(|(name, _)| name == key), "{name}: {key}");
                }
            }
        }
    }

    #[test]
    fn no_key_has_two_places() {
        for family in FAMILIES {
            let mut names: Vec<_> = keys(family).map(|(name, _)| name).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{}", family.model_type);
        }
    }

    #[test]
    fn a_family_names_a_shared_key_only_to_treat_it_otherwise() {
        for family in FAMILIES {
            for own in family.keys {
                assert!(!SHARED.contains(own), "{}: {own:?}", family.model_type);
            }
        }
    }
}
