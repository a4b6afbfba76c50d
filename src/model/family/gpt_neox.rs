//! GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023).

use super::Family;
use super::keys::{Key, NO_WINDOW};
use crate::error::Result;
use crate::model::arch::{
    Activation, Architecture, ConfigJson, Ffn, Multipliers, Names, Norm, Positions, Qkv, Residual,
    Rotary, RotaryKeys,
};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neox",
    class: "GPTNeoXForCausalLM",
    architecture,
    keys: &[
        ("attention_bias", Key::Read),
        ("head_dim", Key::Read),
        ("hidden_act", Key::Read),
        ("hidden_size", Key::Read),
        ("intermediate_size", Key::Read),
        ("layer_norm_eps", Key::Read),
        ("layer_types", Key::Off(NO_WINDOW)),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("rotary_emb_base", Key::Read),
        ("rotary_pct", Key::Read),
        ("sliding_window", Key::Ignored),
        ("use_parallel_residual", Key::Read),
    ],
    ignored: &[
        ".attention.bias",
        ".attention.masked_bias",
        ".attention.rotary_emb.inv_freq",
    ],
    spelling: &[],
    kept: &[],
};

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    config.require("hidden_act", "gelu")?;
    let (hidden_size, heads) = (
        config.usize("hidden_size")?,
        config.usize("num_attention_heads")?,
    );
    if hidden_size % heads != 0 {
        return Err(config.error(format!(
            "hidden_size {hidden_size} is not a multiple of {heads} heads"
        )));
    }
    let head_dim = hidden_size / heads;
    if config.count_or("head_dim", head_dim)? != head_dim {
        let why =
            format!("in this family a head is hidden_size / num_attention_heads = {head_dim} wide");
        return Err(config.unsupported("head_dim", &why));
    }
    let rotary = RotaryKeys {
        theta: "rotary_emb_base",
        fraction: Some(("rotary_pct", 0.25)),
        max_positions: 2048.0,
        ..RotaryKeys::default()
    };
    let bias = config.bool_or("attention_bias", true)?;
    let layers = config.usize("num_hidden_layers")?;
    let initializer_range = config.f64_or("initializer_range", 0.02)?;
    Ok(Architecture {
        vocab_size: config.usize("vocab_size")?,
        hidden_size,
        layers,
        heads,
        kv_heads: heads,
        head_dim,
        max_positions: config.usize_or("max_position_embeddings", 2048)?,
        norm: Norm::LayerNorm {
            epsilon: config.positive_or("layer_norm_eps", 1e-5)?,
        },
        multipliers: Multipliers::default(),
        attention_softcap: None,
        logit_softcap: None,
        conv1d: false,
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        residual: match config.bool_or("use_parallel_residual", true)? {
            true => Residual::Parallel,
            false => Residual::Sequential,
        },
        positions: Positions::rotary(Rotary::read(config, head_dim, &rotary)?, layers),
        qkv: Qkv::HeadInterleaved("attention.query_key_value".into()),
        qk_norm: None,
        attention_bias: (bias, bias),
        windows: vec![None; layers],
        ffn: Ffn::Plain {
            kind: Activation::Gelu,
            width: config.usize("intermediate_size")?,
            bias: true,
            up: "mlp.dense_h_to_4h".into(),
            down: "mlp.dense_4h_to_h".into(),
        },
        experts: None,
        tied: config.bool_or("tie_word_embeddings", false)?,
        initializer_range,
        residual_initializer_range: initializer_range,
        zero_row: None,
        names: Names {
            embed: "gpt_neox.embed_in".into(),
            block: "gpt_neox.layers.".into(),
            attention_norm: Some("input_layernorm".into()),
            attention_post_norm: None,
            attention_out: "attention.dense".into(),
            ffn_norm: Some("post_attention_layernorm".into()),
            ffn_post_norm: None,
            final_norm: "gpt_neox.final_layer_norm".into(),
            head: "embed_out".into(),
        },
    })
}
