//! Gemma 2 (Gemma Team 2024): norms by 1 + weight before and after attention and feed-forward network,
//! GeGLU, a scaled embedding, soft caps, and a sliding window in every other layer.

use super::Family;
use super::keys::Key;
use super::layers;
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Activation, Architecture, ConfigJson, Multipliers, Names, Norm};

pub(super) const FAMILY: Family = Family {
    model_type: "gemma2",
    class: "Gemma2ForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
        ("attn_logit_softcapping", Key::Read),
        ("final_logit_softcapping", Key::Read),
        ("head_dim", Key::Read),
        // Of configs that older versions of transformers read; this one is not.
        ("hidden_act", Key::Ignored),
        ("hidden_activation", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Read),
        ("mlp_bias", Key::Ignored),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("query_pre_attn_scalar", Key::Read),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Read),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let defaults = Defaults {
        max_positions: 8192,
        ..defaults()
    };
    let gemma = shape(config, &defaults)?;
    let sliding = layers::sliding(config, gemma.layers, |layer| layer % 2 == 0)?;
    Ok(Architecture {
        windows: windows(config, &sliding)?,
        attention_softcap: softcap(config, "attn_logit_softcapping", Some(50.0))?,
        logit_softcap: softcap(config, "final_logit_softcapping", Some(30.0))?,
        ..gemma
    })
}

/// What Gemma 2 and 3 take where `config.json` says nothing.
pub(super) fn defaults() -> Defaults {
    Defaults {
        kv_heads: Some(4),
        head_dim: Some(256),
        padding: Some(0),
        tied: true,
        gate: Activation::GeluTanh,
        ..Defaults::default()
    }
}

/// What Gemma 2 and 3 share.
pub(super) fn shape(config: &ConfigJson, defaults: &Defaults) -> Result<Architecture> {
    let bias = config.bool_or("attention_bias", false)?;
    let llama = llama::shape(config, defaults)?;
    let scalar = config.usize_or("query_pre_attn_scalar", 256)?;
    Ok(Architecture {
        attention_bias: (bias, bias),
        attention_scale: 1.0 / (scalar as f64).sqrt(),
        norm: Norm::Rms {
            epsilon: llama.norm.epsilon(),
            plus_one: true,
        },
        multipliers: Multipliers {
            embedding_rounded: true,
            embedding: (llama.hidden_size as f64).sqrt(),
            ..Multipliers::default()
        },
        names: Names {
            attention_post_norm: Some("post_attention_layernorm".into()),
            ffn_norm: Some("pre_feedforward_layernorm".into()),
            ffn_post_norm: Some("post_feedforward_layernorm".into()),
            ..llama.names
        },
        ..llama
    })
}

/// The windows of layers of sliding attention.
pub(super) fn windows(config: &ConfigJson, sliding: &[bool]) -> Result<Vec<Option<usize>>> {
    let window = config.usize_or_null("sliding_window", Some(4096))?;
    layers::windows(config, sliding, window, "it takes a sliding_window")
}

/// A soft cap: none where the key is null.
pub(super) fn softcap(config: &ConfigJson, key: &str, default: Option<f64>) -> Result<Option<f64>> {
    match config.value.get(key) {
        None => Ok(default),
        Some(serde_json::Value::Null) => Ok(None),
        Some(_) => config.positive(key).map(Some),
    }
}
