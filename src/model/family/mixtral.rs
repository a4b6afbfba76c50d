//! Mixtral (Jiang et al. 2024): Mistral's attention, with experts in the place of every feed-forward
//! network.

use super::Family;
use super::experts::{self, Keys};
use super::keys::{Key, NO_WINDOW};
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson, RotaryKeys};

pub(super) const FAMILY: Family = Family {
    model_type: "mixtral",
    class: "MixtralForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Ignored),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Off(NO_WINDOW)),
        ("mlp_bias", Key::Ignored),
        ("num_attention_heads", Key::Read),
        ("num_experts", Key::Read),
        ("num_experts_per_tok", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("num_local_experts", Key::Read),
        ("output_router_logits", Key::Ignored),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("router_aux_loss_coef", Key::Ignored),
        (
            "router_jitter_noise",
            Key::Off("expo trains without noise on the experts' input; set it to 0"),
        ),
        ("sliding_window", Key::Read),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

const KEYS: Keys = Keys {
    width: "intermediate_size",
    count: 8,
    per_token: 2,
    prefix: "block_sparse_moe.",
    parts: ["w1", "w3", "w2"],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let defaults = Defaults {
        kv_heads: Some(8),
        max_positions: 131_072,
        epsilon: 1e-5,
        rotary: Some(RotaryKeys {
            default_theta: 1_000_000.0,
            ..RotaryKeys::default()
        }),
        ..Defaults::default()
    };
    let llama = llama::shape(config, &defaults)?;
    let layers = vec![true; llama.layers];
    Ok(Architecture {
        windows: vec![config.usize_or_null("sliding_window", None)?; llama.layers],
        experts: experts::experts(config, &KEYS, layers, true)?,
        ..llama
    })
}
