//! Granite 3 (IBM 2024), its dense models: Llama's shape with multipliers of embedding, attention, residual
//! branches and logits (Yang et al. 2022).

use super::Family;
use super::keys::{Key, NO_WINDOW};
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson, Multipliers};

pub(super) const FAMILY: Family = Family {
    model_type: "granite",
    class: "GraniteForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
        ("attention_multiplier", Key::Read),
        ("embedding_multiplier", Key::Read),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Off(NO_WINDOW)),
        ("logits_scaling", Key::Read),
        ("mlp_bias", Key::Read),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("residual_multiplier", Key::Read),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Ignored),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let defaults = Defaults {
        mlp_bias: config.bool_or("mlp_bias", false)?,
        ..Defaults::default()
    };
    let bias = config.bool_or("attention_bias", false)?;
    Ok(Architecture {
        attention_bias: (bias, bias),
        attention_scale: config.positive_or("attention_multiplier", 1.0)?,
        multipliers: Multipliers {
            embedding: config.positive_or("embedding_multiplier", 1.0)?,
            embedding_rounded: false,
            residual: config.positive_or("residual_multiplier", 1.0)?,
            logits: 1.0 / config.positive_or("logits_scaling", 1.0)?,
        },
        ..llama::shape(config, &defaults)?
    })
}
