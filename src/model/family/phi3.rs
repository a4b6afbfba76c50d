//! Phi-3, Phi-3.5, Phi-4 and Phi-4-mini (Abdin et al. 2024): Llama's shape with stacked projections, a
//! sliding window in every layer or none, and rotary on a part of each head.

use super::Family;
use super::keys::Key;
use super::llama::{self, Defaults};
use crate::error::Result;
use crate::model::arch::{Activation, Architecture, ConfigJson, Ffn, GateUp, Qkv, RotaryKeys};

pub(super) const FAMILY: Family = Family {
    model_type: "phi3",
    class: "Phi3ForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Ignored),
        // Code of the model's own that transformers has had since.
        ("auto_map", Key::Ignored),
        ("embd_pdrop", Key::Ignored),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Off(ALIKE)),
        ("mlp_bias", Key::Ignored),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("resid_pdrop", Key::Ignored),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Read),
    ],
    ignored: llama::IGNORED,
    spelling: &[],
    kept: &[],
};

const ALIKE: &str = "in a Phi-3 model every layer has the window of sliding_window, or none has";

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let defaults = Defaults {
        max_positions: 4096,
        epsilon: 1e-5,
        padding: Some(32_000),
        rotary: Some(RotaryKeys {
            fraction: Some(("partial_rotary_factor", 1.0)),
            original: Some(4096.0),
            ..RotaryKeys::default()
        }),
        ..Defaults::default()
    };
    let llama = llama::shape(config, &defaults)?;
    let window = config.usize_or_null("sliding_window", None)?;
    Ok(Architecture {
        qkv: Qkv::Stacked("self_attn.qkv_proj".into()),
        windows: vec![window; llama.layers],
        ffn: Ffn::Gated {
            kind: Activation::Silu,
            width: llama.ffn.width(),
            bias: false,
            gate_up: GateUp::Stacked("mlp.gate_up_proj".into()),
            down: "mlp.down_proj".into(),
        },
        ..llama
    })
}
