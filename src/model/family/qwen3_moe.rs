//! Qwen3's mixtures of experts (Yang et al. 2025): Qwen3's attention, with experts in the place of the
//! feed-forward network.

use super::Family;
use super::experts::{self, Keys};
use super::keys::{Key, NO_WINDOW, QK_NORM};
use super::llama::{self, Defaults};
use super::qwen3;
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3_moe",
    class: "Qwen3MoeForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
        ("decoder_sparse_step", Key::Read),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Off(NO_WINDOW)),
        ("max_window_layers", Key::Ignored),
        ("mlp_bias", Key::Ignored),
        ("mlp_only_layers", Key::Read),
        ("moe_intermediate_size", Key::Read),
        ("norm_topk_prob", Key::Read),
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
        ("sliding_window", Key::Read),
        ("use_sliding_window", Key::Read),
        ("use_qk_norm", Key::On(QK_NORM)),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

const KEYS: Keys = Keys {
    width: "moe_intermediate_size",
    count: 128,
    per_token: 8,
    prefix: "mlp.",
    parts: ["gate_proj", "up_proj", "down_proj"],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let defaults = Defaults {
        kv_heads: Some(4),
        max_positions: 32_768,
        ..Defaults::default()
    };
    let llama = llama::shape(config, &defaults)?;
    let window = match config.bool_or("use_sliding_window", false)? {
        true => config.usize_or_null("sliding_window", Some(4096))?,
        false => None,
    };
    let step = config.usize_or("decoder_sparse_step", 1)?;
    let dense = config.integers("mlp_only_layers")?;
    let any = experts::count(config, &KEYS)? > 0;
    let has_experts =
        |layer: usize| any && !dense.contains(&layer) && (layer + 1).is_multiple_of(step);
    let layers = (0..llama.layers).map(has_experts).collect();
    let normalized = config.bool_or("norm_topk_prob", false)?;
    let bias = config.bool_or("attention_bias", false)?;
    Ok(Architecture {
        attention_bias: (bias, bias),
        qk_norm: Some(qwen3::qk_norm()),
        windows: vec![window; llama.layers],
        experts: experts::experts(config, &KEYS, layers, normalized)?,
        ..llama
    })
}
