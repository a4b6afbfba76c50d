//! GPT-2 (Radford et al. 2019).

use super::Family;
use super::keys::{Key, NO_WINDOW};
use crate::error::Result;
use crate::model::arch::{
    Activation, Architecture, ConfigJson, Ffn, Multipliers, Names, Norm, Positions, Qkv, Residual,
};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    class: "GPT2LMHeadModel",
    architecture,
    keys: &[
        ("activation_function", Key::Read),
        ("attn_pdrop", Key::Ignored),
        ("embd_pdrop", Key::Ignored),
        ("hidden_size", Key::Read),
        ("layer_norm_epsilon", Key::Read),
        ("layer_types", Key::Off(NO_WINDOW)),
        ("n_ctx", Key::Ignored),
        ("n_embd", Key::Read),
        ("n_head", Key::Read),
        ("n_inner", Key::Read),
        ("n_layer", Key::Read),
        ("n_positions", Key::Read),
        ("num_attention_heads", Key::Read),
        ("num_hidden_layers", Key::Read),
        ("original_max_position_embeddings", Key::Ignored),
        ("partial_rotary_factor", Key::Off(LEARNED)),
        // Attention scores are computed in f32 here in any case.
        ("reorder_and_upcast_attn", Key::Ignored),
        ("resid_pdrop", Key::Ignored),
        ("rope_parameters", Key::Off(LEARNED)),
        ("rope_scaling", Key::Off(LEARNED)),
        (
            "scale_attn_by_inverse_layer_idx",
            Key::Off("expo scales attention scores alike in all layers"),
        ),
        ("scale_attn_weights", Key::Read),
        ("sliding_window", Key::Ignored),
        // Of another model class.
        ("summary_activation", Key::Ignored),
        ("summary_first_dropout", Key::Ignored),
        ("summary_proj_to_labels", Key::Ignored),
        ("summary_type", Key::Ignored),
        ("summary_use_proj", Key::Ignored),
    ],
    ignored: &[".attn.bias", ".attn.masked_bias"],
    // A base model's files, as those of the hub, leave the prefix out.
    spelling: &[("transformer.", "")],
    kept: &[],
};

const LEARNED: &str = "in this family positions are learned";

fn architecture(config: &ConfigJson) -> Result<Architecture> {
    // transformers knows both names of a size, and takes the common one where both are there.
    let either = |common: &'static str, own: &'static str| match config.value.get(common) {
        Some(_) => common,
        None => own,
    };
    let hidden_size = config.usize(either("hidden_size", "n_embd"))?;
    let heads = config.usize(either("num_attention_heads", "n_head"))?;
    let layers = config.usize(either("num_hidden_layers", "n_layer"))?;
    let positions = either("max_position_embeddings", "n_positions");
    if hidden_size % heads != 0 {
        return Err(config.error(format!(
            "hidden_size {hidden_size} is not a multiple of {heads} heads"
        )));
    }
    let head_dim = hidden_size / heads;
    let initializer_range = config.f64_or("initializer_range", 0.02)?;
    Ok(Architecture {
        vocab_size: config.usize("vocab_size")?,
        hidden_size,
        layers,
        heads,
        kv_heads: heads,
        head_dim,
        max_positions: config.usize_or(positions, 1024)?,
        norm: Norm::LayerNorm {
            epsilon: config.positive_or("layer_norm_epsilon", 1e-5)?,
        },
        multipliers: Multipliers::default(),
        attention_scale: match config.bool_or("scale_attn_weights", true)? {
            true => 1.0 / (head_dim as f64).sqrt(),
            false => 1.0,
        },
        attention_softcap: None,
        residual: Residual::Sequential,
        positions: Positions::Learned("transformer.wpe".into()),
        qkv: Qkv::Stacked("attn.c_attn".into()),
        qk_norm: None,
        attention_bias: (true, true),
        windows: vec![None; layers],
        ffn: Ffn::Plain {
            kind: gelu(config)?,
            width: config.usize_or("n_inner", 4 * hidden_size)?,
            bias: true,
            up: "mlp.c_fc".into(),
            down: "mlp.c_proj".into(),
        },
        experts: None,
        tied: config.bool_or("tie_word_embeddings", true)?,
        logit_softcap: None,
        conv1d: true,
        initializer_range,
        residual_initializer_range: initializer_range / ((2 * layers) as f64).sqrt(),
        zero_row: None,
        names: Names {
            embed: "transformer.wte".into(),
            block: "transformer.h.".into(),
            attention_norm: Some("ln_1".into()),
            attention_post_norm: None,
            attention_out: "attn.c_proj".into(),
            ffn_norm: Some("ln_2".into()),
            ffn_post_norm: None,
            final_norm: "transformer.ln_f".into(),
            head: "lm_head".into(),
        },
    })
}

fn gelu(config: &ConfigJson) -> Result<Activation> {
    const KEY: &str = "activation_function";
    match config.str_or(KEY, "gelu_new")? {
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        other => Err(config.refuse(KEY, other, "valid: gelu_new, gelu_pytorch_tanh, gelu")),
    }
}
