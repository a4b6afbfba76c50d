//! Qwen3, its dense models (Yang et al. 2025): Qwen2 with norms on the heads of query and key in the
//! place of biases.

use super::Family;
use super::keys::{Key, QK_NORM};
use super::{llama, qwen2};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson, QkNorm};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
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
        ("use_qk_norm", Key::On(QK_NORM)),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let bias = config.bool_or("attention_bias", false)?;
    let qwen2 = qwen2::shape(config, Some(128))?;
    Ok(Architecture {
        attention_bias: (bias, bias),
        qk_norm: Some(qk_norm()),
        ..qwen2
    })
}

/// The norms on the heads of query and key.
pub(super) fn qk_norm() -> QkNorm {
    QkNorm::PerHead(["self_attn.q_norm", "self_attn.k_norm"].map(Into::into))
}
