//! Llama 1 to 3 (Touvron et al. 2023; Grattafiori et al. 2024), and the shape that other families
//! have taken from it.

use super::Family;
use super::keys::{Key, NO_WINDOW};
use crate::error::Result;
use crate::model::arch::{
    Activation, Architecture, ConfigJson, Ffn, GateUp, Multipliers, Names, Norm, Positions, Qkv,
    Residual, Rotary, RotaryKeys,
};

pub(super) const FAMILY: Family = Family {
    model_type: "llama",
    class: "LlamaForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_types", Key::Off(NO_WINDOW)),
        ("mlp_bias", Key::Read),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("num_key_value_heads", Key::Read),
        ("rms_norm_eps", Key::Read),
        ("rope_theta", Key::Read),
        ("sliding_window", Key::Ignored),
    ],
    ignored: IGNORED,
    spelling: &[],
    kept: &[],
};

/// What checkpoints of this shape carry and nothing reads.
pub(super) const IGNORED: &[&str] = &[".self_attn.rotary_emb.inv_freq"];

/// What a family has of its own, or takes where `config.json` says nothing.
pub(super) struct Defaults {
    /// Bias on the feed-forward projections; a family that has the key reads it.
    pub mlp_bias: bool,
    /// As many as query heads where `None`.
    pub kv_heads: Option<usize>,
    /// The hidden size over the heads where `None`.
    pub head_dim: Option<usize>,
    pub max_positions: usize,
    /// Of the norms.
    pub epsilon: f64,
    /// The padding token.
    pub padding: Option<usize>,
    pub tied: bool,
    /// The gate's activation: the only one.
    pub gate: Activation,
    /// Of layers that all rotate alike; where `None`, the family puts its positions in the place of the
    /// shape's, which are none.
    pub rotary: Option<RotaryKeys>,
}

impl Default for Defaults {
    /// Llama's.
    fn default() -> Self {
        Self {
            mlp_bias: false,
            kv_heads: None,
            head_dim: None,
            max_positions: 2048,
            epsilon: 1e-6,
            padding: None,
            tied: false,
            gate: Activation::Silu,
            rotary: Some(RotaryKeys::default()),
        }
    }
}

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    let (hidden_size, heads) = (
        config.usize("hidden_size")?,
        config.usize("num_attention_heads")?,
    );
    if hidden_size % heads != 0 {
        return Err(config.error(format!(
            "hidden_size {hidden_size} is not a multiple of {heads} heads"
        )));
    }
    let bias = config.bool_or("attention_bias", false)?;
    let defaults = Defaults {
        mlp_bias: config.bool_or("mlp_bias", false)?,
        ..Defaults::default()
    };
    Ok(Architecture {
        attention_bias: (bias, bias),
        ..shape(config, &defaults)?
    })
}

/// Llama's shape: RMS norms, grouped queries, rotary on whole heads, SwiGLU; no biases, no windows.
pub(super) fn shape(config: &ConfigJson, defaults: &Defaults) -> Result<Architecture> {
    match defaults.gate {
        Activation::Silu => config.require("hidden_act", "silu")?,
        Activation::Gelu => config.require("hidden_act", "gelu")?,
        Activation::GeluTanh => gelu_tanh(config)?,
    }
    let (hidden_size, heads) = (
        config.usize("hidden_size")?,
        config.usize("num_attention_heads")?,
    );
    let kv_heads = config.usize_or_null("num_key_value_heads", defaults.kv_heads)?;
    let kv_heads = kv_heads.unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(config
            .error(format!(
                "{heads} heads are not a multiple of {kv_heads} key-value heads"
            ))
            .hint("num_key_value_heads must divide num_attention_heads"));
    }
    let head_dim = defaults.head_dim.unwrap_or(hidden_size / heads);
    let head_dim = config.usize_or("head_dim", head_dim)?;
    let layers = config.usize("num_hidden_layers")?;
    let vocab_size = config.usize("vocab_size")?;
    let initializer_range = config.f64_or("initializer_range", 0.02)?;
    let positions = match &defaults.rotary {
        Some(keys) => {
            let keys = RotaryKeys {
                max_positions: defaults.max_positions as f64,
                ..keys.clone()
            };
            Positions::rotary(Rotary::read(config, head_dim, &keys)?, layers)
        }
        None => Positions::Rotary {
            tables: Vec::new(),
            layers: vec![None; layers],
        },
    };
    let padding = match config.value.get("pad_token_id") {
        Some(id) => id.as_u64().map(|id| id as usize),
        None => defaults.padding,
    };
    Ok(Architecture {
        vocab_size,
        hidden_size,
        layers,
        heads,
        kv_heads,
        head_dim,
        max_positions: config.usize_or("max_position_embeddings", defaults.max_positions)?,
        norm: Norm::Rms {
            epsilon: config.positive_or("rms_norm_eps", defaults.epsilon)?,
            plus_one: false,
        },
        multipliers: Multipliers::default(),
        attention_softcap: None,
        logit_softcap: None,
        conv1d: false,
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        residual: Residual::Sequential,
        positions,
        qkv: Qkv::Separate(
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(Into::into),
        ),
        qk_norm: None,
        attention_bias: (false, false),
        windows: vec![None; layers],
        ffn: Ffn::Gated {
            kind: defaults.gate,
            width: config.usize("intermediate_size")?,
            bias: defaults.mlp_bias,
            gate_up: GateUp::Separate(["mlp.gate_proj", "mlp.up_proj"].map(Into::into)),
            down: "mlp.down_proj".into(),
        },
        experts: None,
        tied: config.bool_or("tie_word_embeddings", defaults.tied)?,
        initializer_range,
        residual_initializer_range: initializer_range,
        zero_row: padding.filter(|row| *row < vocab_size),
        names: Names {
            embed: "model.embed_tokens".into(),
            block: "model.layers.".into(),
            attention_norm: Some("input_layernorm".into()),
            attention_post_norm: None,
            attention_out: "self_attn.o_proj".into(),
            ffn_norm: Some("post_attention_layernorm".into()),
            ffn_post_norm: None,
            final_norm: "model.norm".into(),
            head: "lm_head".into(),
        },
    })
}

/// Checks that the activation is [`Activation::GeluTanh`].
fn gelu_tanh(config: &ConfigJson) -> Result<()> {
    const KEY: &str = "hidden_activation";
    match config.str_or(KEY, "gelu_pytorch_tanh")? {
        "gelu_pytorch_tanh" | "gelu_new" => Ok(()),
        other => Err(config.refuse(KEY, other, "valid: gelu_pytorch_tanh, gelu_new")),
    }
}
