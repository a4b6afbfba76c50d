//! OLMo 3 (Olmo et al. 2025): OLMo 2 with a sliding window in three layers of four. Rotary embeddings are
//! scaled in the others only.

use super::Family;
use super::keys::{Key, QK_NORM};
use super::llama::{self, Defaults};
use super::{layers, olmo2};
use crate::error::Result;
use crate::model::arch::{Architecture, ConfigJson, Rotary, RotaryLayerKeys};

pub(super) const FAMILY: Family = Family {
    model_type: "olmo3",
    class: "Olmo3ForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Read),
        ("mlp_bias", Key::Ignored),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Read),
        ("use_qk_norm", Key::On(QK_NORM)),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let defaults = Defaults {
        rotary: None,
        ..olmo2::defaults()
    };
    let olmo2 = olmo2::shape(config, &defaults)?;
    let sliding = layers::sliding(config, olmo2.layers, |layer| (layer + 1) % 4 != 0)?;
    let window = config.usize_or_null("sliding_window", Some(4096))?;
    let keys = RotaryLayerKeys {
        full_theta: 500_000.0,
        sliding_key: None,
        sliding_theta: 500_000.0,
        max_positions: defaults.max_positions as f64,
    };
    let rotary = Rotary::read_by_layer_type(config, olmo2.head_dim, keys)?;
    Ok(Architecture {
        windows: layers::windows(config, &sliding, window, "it takes a sliding_window")?,
        positions: layers::positions(rotary, &sliding),
        ..olmo2
    })
}
