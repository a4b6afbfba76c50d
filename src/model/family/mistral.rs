//! Mistral (Jiang et al. 2023): Llama's shape, with a sliding window in every layer.

use super::Family;
use super::keys::Key;
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson};

pub(super) const FAMILY: Family = Family {
    model_type: "mistral",
    class: "MistralForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Ignored),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Off(ALIKE)),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Read),
        ("mlp_bias", Key::Ignored),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

const ALIKE: &str = "in a Mistral model every layer has the window; one with layers of several kinds is another family";

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let defaults = Defaults {
        kv_heads: Some(8),
        max_positions: 131_072,
        ..Defaults::default()
    };
    let llama = llama::shape(config, &defaults)?;
    // As in transformers, a window that is not mentioned is there; later models say null.
    let window = config.usize_or_null("sliding_window", Some(4096))?;
    Ok(Architecture {
        windows: vec![window; llama.layers],
        ..llama
    })
}
