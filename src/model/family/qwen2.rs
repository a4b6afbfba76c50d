//! Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's shape with biases on query, key and value.

use super::Family;
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    architecture,
    ignored: llama::IGNORED,
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
    config.without(
        "dual_chunk_attention_config",
        "expo implements full and sliding attention; remove the key to train with full attention, as transformers does",
    )?;
    config.without(
        "use_mrope",
        "expo implements positions of text, not of images and video",
    )?;
    let defaults = Defaults {
        mlp_bias: false,
        kv_heads: Some(32),
        head_dim,
        max_positions: 32_768,
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
    let Some(kinds) = config.per_layer("layer_types", layers)? else {
        let first = config.count_or("max_window_layers", 28)?;
        return Ok((0..layers)
            .map(|layer| window.filter(|_| layer >= first))
            .collect());
    };
    let of_kind = |kind: &str| match (kind, window) {
        ("full_attention", _) => Ok(None),
        ("sliding_attention", Some(_)) => Ok(window),
        ("sliding_attention", None) => Err(config.refuse(
            "layer_types",
            kind,
            "it takes use_sliding_window = true and a sliding_window",
        )),
        _ => Err(config.refuse(
            "layer_types",
            kind,
            "valid: full_attention, sliding_attention",
        )),
    };
    kinds.into_iter().map(of_kind).collect()
}
