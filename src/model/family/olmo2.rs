//! OLMo 2 (OLMo et al. 2024): Llama's shape with norms after attention and feed-forward network instead of
//! before them, and over whole queries and keys.

use super::Family;
use super::keys::{Key, NO_WINDOW, QK_NORM};
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson, Names, QkNorm};

pub(super) const FAMILY: Family = Family {
    model_type: "olmo2",
    class: "Olmo2ForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Off(NO_WINDOW)),
        ("mlp_bias", Key::Ignored),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Ignored),
        ("use_qk_norm", Key::On(QK_NORM)),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

/// What OLMo 2 and 3 take where `config.json` says nothing.
pub(super) fn defaults() -> Defaults {
    Defaults {
        epsilon: 1e-5,
        padding: Some(1),
        ..Defaults::default()
    }
}

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    shape(config, &defaults())
}

/// What OLMo 2 and 3 share.
pub(super) fn shape(config: &ConfigJson, defaults: &Defaults) -> Result<Architecture> {
    let bias = config.bool_or("attention_bias", false)?;
    let llama = llama::shape(config, defaults)?;
    Ok(Architecture {
        attention_bias: (bias, bias),
        qk_norm: Some(QkNorm::Whole(
            ["self_attn.q_norm", "self_attn.k_norm"].map(Into::into),
        )),
        names: Names {
            attention_norm: None,
            attention_post_norm: Some("post_attention_layernorm".into()),
            ffn_norm: None,
            ffn_post_norm: Some("post_feedforward_layernorm".into()),
            ..llama.names
        },
        ..llama
    })
}
