//! SmolLM3 (Bakouch et al. 2025): Llama's shape, tied, without rotary in every fourth layer (Yang et al.
//! 2025).

use serde_json::Value;

use super::Family;
use super::keys::Key;
use super::layers;
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson, Positions, RotaryKeys};

pub(super) const FAMILY: Family = Family {
    model_type: "smollm3",
    class: "SmolLM3ForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Read),
        ("max_window_layers", Key::Ignored),
        ("mlp_bias", Key::Read),
        ("no_rope_layer_interval", Key::Read),
        ("no_rope_layers", Key::Read),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Read),
        ("use_sliding_window", Key::Read),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let defaults = Defaults {
        mlp_bias: config.bool_or("mlp_bias", false)?,
        kv_heads: Some(4),
        max_positions: 32_768,
        padding: Some(128_004),
        tied: true,
        rotary: Some(RotaryKeys {
            default_theta: 2_000_000.0,
            ..RotaryKeys::default()
        }),
        ..Defaults::default()
    };
    let llama = llama::shape(config, &defaults)?;
    let bias = config.bool_or("attention_bias", false)?;
    let rotates = rotates(config, llama.layers)?;
    let window = match config.bool_or("use_sliding_window", false)? {
        true => config.usize_or_null("sliding_window", None)?,
        false => None,
    };
    let default = |layer: usize| window.is_some() && !rotates[layer];
    let sliding = layers::sliding(config, llama.layers, default)?;
    let takes = "it takes use_sliding_window = true and a sliding_window";
    Ok(Architecture {
        attention_bias: (bias, bias),
        windows: layers::windows(config, &sliding, window, takes)?,
        positions: Positions::Rotary {
            tables: llama.positions.tables().to_vec(),
            layers: rotates
                .iter()
                .map(|&rotates| rotates.then_some(0))
                .collect(),
        },
        ..llama
    })
}

/// Whether each layer rotates queries and keys. The list of `no_rope_layers` has 1 where it does; without
/// it every layer of the number `no_rope_layer_interval` does not.
fn rotates(config: &ConfigJson, layers: usize) -> Result<Vec<bool>> {
    const LIST: &str = "no_rope_layers";
    const INTERVAL: &str = "no_rope_layer_interval";
    match config.value.get(LIST) {
        None | Some(Value::Null) => {
            config.not_null(INTERVAL)?;
            let interval = config.usize_or(INTERVAL, 4)?;
            Ok((0..layers)
                .map(|layer| (layer + 1) % interval != 0)
                .collect())
        }
        Some(list) => {
            let flag = |value: &Value| match value.as_u64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            };
            let list = list.as_array().filter(|list| list.len() == layers);
            let list = list.and_then(|list| list.iter().map(flag).collect());
            let valid = format!(
                "it is a list of {layers} numbers, one per layer: 1 with rotary, 0 without"
            );
            list.ok_or_else(|| config.unsupported(LIST, &valid))
        }
    }
}
