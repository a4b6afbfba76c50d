//! Gemma 3 (Gemma Team 2025), its models of text: Gemma 2 with norms on the heads of query and key in the
//! place of soft caps, a sliding window in five layers of six, and rotary embeddings by the kind of layer.

use super::Family;
use super::keys::{Key, QK_NORM};
use super::llama::{self, Defaults};
use super::{gemma2, layers};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson, QkNorm, Rotary, RotaryLayerKeys};

pub(super) const FAMILY: Family = Family {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    architecture,
    keys: &[
        // What `layer_types` was made from.
        ("_sliding_window_pattern", Key::Ignored),
        ("attention_bias", Key::Read),
        // In transformers no computation reads it.
        ("attn_logit_softcapping", Key::Ignored),
        ("final_logit_softcapping", Key::Read),
        ("head_dim", Key::Read),
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
        ("rope_local_base_freq", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Read),
        ("sliding_window_pattern", Key::Read),
        ("use_qk_norm", Key::On(QK_NORM)),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

/// What a config of this family need not say: those of the larger models do not.
const SIZES: [(&str, usize); 5] = [
    ("hidden_size", 2304),
    ("intermediate_size", 9216),
    ("num_attention_heads", 8),
    ("num_hidden_layers", 26),
    ("vocab_size", 262_208),
];

/// The architecture of a config, or of the part of one that describes the model of text.
pub(super) fn architecture(config: &ConfigJson) -> Result<Architecture> {
    const PATTERN: &str = "sliding_window_pattern";
    let config = &config.with_defaults(&SIZES);
    let defaults = Defaults {
        max_positions: 131_072,
        rotary: None,
        ..gemma2::defaults()
    };
    let gemma = gemma2::shape(config, &defaults)?;
    config.not_null(PATTERN)?;
    let pattern = config.usize_or(PATTERN, 6)?;
    let sliding = layers::sliding(config, gemma.layers, |layer| (layer + 1) % pattern != 0)?;
    let keys = RotaryLayerKeys {
        full_theta: 1_000_000.0,
        sliding_key: Some("rope_local_base_freq"),
        sliding_theta: 10_000.0,
        max_positions: defaults.max_positions as f64,
    };
    let rotary = Rotary::read_by_layer_type(config, gemma.head_dim, keys)?;
    Ok(Architecture {
        windows: gemma2::windows(config, &sliding)?,
        positions: layers::positions(rotary, &sliding),
        qk_norm: Some(QkNorm::PerHead(
            ["self_attn.q_norm", "self_attn.k_norm"].map(Into::into),
        )),
        logit_softcap: gemma2::softcap(config, "final_logit_softcapping", None)?,
        ..gemma
    })
}
