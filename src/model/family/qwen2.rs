//! Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's shape with biases on query, key and value.

use super::Family;
use super::keys::Key;
use super::layers;
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Ignored),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Read),
        ("max_window_layers", Key::Read),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Read),
        ("mlp_bias", Key::Ignored),
        ("use_sliding_window", Key::Read),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let llama = shape(config, None)?;
    Ok(Architecture {
        attention_bias: (true, false),
        ..llama
    })
}

/// What Qwen2 and Qwen3 share: Llama's shape with a sliding window in some layers.
pub(super) fn shape(config: &ConfigJson, head_dim: Option<usize>) -> Result<Architecture> {
    let defaults = Defaults {
        kv_heads: Some(32),
        head_dim,
        max_positions: 32_768,
        ..Defaults::default()
    };
    let llama = llama::shape(config, &defaults)?;
    Ok(Architecture {
        windows: windows(config, llama.layers)?,
        ..llama
    })
}

/// The layers that `layer_types` names have the window, or else those from `max_window_layers` on.
fn windows(config: &ConfigJson, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match config.bool_or("use_sliding_window", false)? {
        true => config.usize_or_null("sliding_window", Some(4096))?,
        false => None,
    };
    let first = match config.per_layer("layer_types", layers)? {
        Some(_) => 0,
        None => config.count_or("max_window_layers", 28)?,
    };
    let default = |layer: usize| window.is_some() && layer >= first;
    let sliding = layers::sliding(config, layers, default)?;
    let takes = "it takes use_sliding_window = true and a sliding_window";
    layers::windows(config, &sliding, window, takes)
}
