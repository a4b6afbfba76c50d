//! Mistral (Jiang et al. 2023): Llama's shape, with a sliding window in every layer.

use super::Family;
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson};

pub(super) const FAMILY: Family = Family {
    model_type: "mistral",
    class: "MistralForCausalLM",
    architecture,
    ignored: llama::IGNORED,
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    config.without(
        "layer_types",
        "in a Mistral model every layer has the window; one with layers of several kinds is another family",
    )?;
    let defaults = Defaults {
        mlp_bias: false,
        kv_heads: Some(8),
        head_dim: None,
        max_positions: 131_072,
    };
    let llama = llama::shape(config, &defaults)?;
    // As in transformers, a window that is not mentioned is there; later models say null.
    let window = config.usize_or_null("sliding_window", Some(4096))?;
    Ok(Architecture {
        windows: vec![window; llama.layers],
        ..llama
    })
}
