//! The text that stands for an architecture in a model's content hash.
//!
//! *Why*: content hashes name caches and are compared when a run is resumed, so the text must not
//! change with the types. It is written out here in the form of the first version, in which a trait was
//! a boolean; a later trait adds a field only where it is not at that version's value.

use std::fmt::{self, Debug, Formatter};

use super::{
    Activation, Architecture, Ffn, GateUp, Multipliers, Norm, Positions, QkNorm, Qkv, Residual,
};

/// [`Architecture`] as the content hash has it.
pub(in crate::model) struct Identity<'a>(pub &'a Architecture);

impl Debug for Identity<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let arch = self.0;
        let (norm_bias, norm_epsilon) = match arch.norm {
            Norm::LayerNorm { epsilon } => (true, epsilon),
            Norm::Rms { epsilon, .. } => (false, epsilon),
        };
        let (gated, mlp_bias) = match &arch.ffn {
            Ffn::Plain { bias, .. } => (false, bias),
            Ffn::Gated { bias, .. } => (true, bias),
        };
        // In the first version every layer was rotated alike.
        let rotary: &dyn Debug = match &arch.positions {
            Positions::Rotary { tables, layers } => match tables.as_slice() {
                [rotary] if layers.iter().all(Option::is_some) => rotary,
                _ => &arch.positions,
            },
            Positions::Learned(_) => &arch.positions,
        };
        let mut text = f.debug_struct("Architecture");
        text.field("vocab_size", &arch.vocab_size)
            .field("hidden_size", &arch.hidden_size)
            .field("intermediate_size", &arch.ffn.width())
            .field("layers", &arch.layers)
            .field("heads", &arch.heads)
            .field("kv_heads", &arch.kv_heads)
            .field("head_dim", &arch.head_dim)
            .field("max_positions", &arch.max_positions)
            .field("norm_epsilon", &norm_epsilon)
            .field("norm_bias", &norm_bias)
            .field("parallel_residual", &(arch.residual == Residual::Parallel))
            .field("rotary", rotary)
            .field("fused_qkv", &matches!(arch.qkv, Qkv::HeadInterleaved(_)))
            .field("attention_bias", &arch.attention_bias)
            .field("windows", &arch.windows)
            .field("gated", &gated)
            .field("mlp_bias", mlp_bias)
            .field("tied", &arch.tied)
            .field("initializer_range", &arch.initializer_range)
            .field("zero_row", &arch.zero_row)
            .field("names", &Names(arch));
        let multipliers = (arch.multipliers != Multipliers::default()).then_some(&arch.multipliers);
        let activation: Option<&dyn Debug> = match &arch.ffn {
            Ffn::Plain {
                kind: Activation::Gelu,
                ..
            }
            | Ffn::Gated {
                kind: Activation::Silu,
                ..
            } => None,
            Ffn::Plain { kind, .. } => Some(kind),
            Ffn::Gated { kind, .. } => Some(kind),
        };
        let default_scale = 1.0 / (arch.head_dim as f64).sqrt();
        let scale = (arch.attention_scale != default_scale).then_some(arch.attention_scale);
        let stacked = match (&arch.qkv, &arch.ffn) {
            (Qkv::Stacked(_), _) => true,
            (_, Ffn::Gated { gate_up, .. }) => matches!(gate_up, GateUp::Stacked(_)),
            _ => false,
        };
        let plus_one = matches!(arch.norm, Norm::Rms { plus_one: true, .. });
        let whole = matches!(arch.qk_norm, Some(QkNorm::Whole(_)));
        let post_norms = [&arch.names.attention_post_norm, &arch.names.ffn_post_norm];
        let later: [(&str, Option<&dyn Debug>); 11] = [
            ("activation", activation),
            ("attention_scale", scale.as_ref().map(|x| x as _)),
            (
                "attention_softcap",
                arch.attention_softcap.as_ref().map(|x| x as _),
            ),
            ("conv1d", arch.conv1d.then_some(&true)),
            ("experts", arch.experts.as_ref().map(|x| x as _)),
            ("logit_softcap", arch.logit_softcap.as_ref().map(|x| x as _)),
            ("multipliers", multipliers.map(|x| x as _)),
            ("norm_plus_one", plus_one.then_some(&true)),
            (
                "post_norms",
                post_norms
                    .iter()
                    .any(|x| x.is_some())
                    .then_some(&post_norms),
            ),
            ("qk_norm_whole", whole.then_some(&true)),
            ("stacked", stacked.then_some(&true)),
        ];
        for (name, value) in later {
            if let Some(value) = value {
                text.field(name, value);
            }
        }
        text.finish()
    }
}

/// A name as the first version had it, where every block had both norms.
struct NormName<'a>(&'a Option<String>);

impl Debug for NormName<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self.0 {
            Some(name) => Debug::fmt(name, f),
            None => f.write_str("None"),
        }
    }
}

struct Names<'a>(&'a Architecture);

impl Debug for Names<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (arch, names) = (self.0, &self.0.names);
        let qkv = match &arch.qkv {
            Qkv::Separate(parts) => parts.as_slice(),
            Qkv::Stacked(part) | Qkv::HeadInterleaved(part) => std::slice::from_ref(part),
        };
        let qk_norm = arch.qk_norm.as_ref().map(|norm| match norm {
            QkNorm::PerHead(parts) | QkNorm::Whole(parts) => parts,
        });
        let (mlp_in, mlp_out) = match &arch.ffn {
            Ffn::Plain { up, down, .. } => (std::slice::from_ref(up), down),
            Ffn::Gated { gate_up, down, .. } => match gate_up {
                GateUp::Separate(parts) => (parts.as_slice(), down),
                GateUp::Stacked(part) => (std::slice::from_ref(part), down),
            },
        };
        f.debug_struct("Names")
            .field("embed", &names.embed)
            .field("block", &names.block)
            .field("norm1", &NormName(&names.attention_norm))
            .field("qkv", &qkv)
            .field("qk_norm", &qk_norm)
            .field("attention_out", &names.attention_out)
            .field("norm2", &NormName(&names.ffn_norm))
            .field("mlp_in", &mlp_in)
            .field("mlp_out", mlp_out)
            .field("final_norm", &names.final_norm)
            .field("head", &names.head)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::weights::ModelFolder;

    const NEOX: &str = "Architecture { vocab_size: 304, hidden_size: 32, intermediate_size: 48, \
        layers: 2, heads: 4, kv_heads: 4, head_dim: 8, max_positions: 256, norm_epsilon: 1e-5, \
        norm_bias: true, parallel_residual: true, rotary: Rotary { dim: 2, theta: 10000.0, \
        scaling: None }, fused_qkv: true, attention_bias: (true, true), windows: [None, None], \
        gated: false, mlp_bias: true, tied: false, initializer_range: 0.02, zero_row: None, \
        names: Names { embed: \"gpt_neox.embed_in\", block: \"gpt_neox.layers.\", \
        norm1: \"input_layernorm\", qkv: [\"attention.query_key_value\"], qk_norm: None, \
        attention_out: \"attention.dense\", norm2: \"post_attention_layernorm\", \
        mlp_in: [\"mlp.dense_h_to_4h\"], mlp_out: \"mlp.dense_4h_to_h\", \
        final_norm: \"gpt_neox.final_layer_norm\", head: \"embed_out\" } }";

    const QWEN3: &str = "Architecture { vocab_size: 304, hidden_size: 24, intermediate_size: 40, \
        layers: 2, heads: 4, kv_heads: 2, head_dim: 12, max_positions: 256, norm_epsilon: 1e-6, \
        norm_bias: false, parallel_residual: false, rotary: Rotary { dim: 12, theta: 10000.0, \
        scaling: None }, fused_qkv: false, attention_bias: (false, false), windows: [None, None], \
        gated: true, mlp_bias: false, tied: true, initializer_range: 0.02, zero_row: Some(0), \
        names: Names { embed: \"model.embed_tokens\", block: \"model.layers.\", \
        norm1: \"input_layernorm\", qkv: [\"self_attn.q_proj\", \"self_attn.k_proj\", \
        \"self_attn.v_proj\"], qk_norm: Some([\"self_attn.q_norm\", \"self_attn.k_norm\"]), \
        attention_out: \"self_attn.o_proj\", norm2: \"post_attention_layernorm\", \
        mlp_in: [\"mlp.gate_proj\", \"mlp.up_proj\"], mlp_out: \"mlp.down_proj\", \
        final_norm: \"model.norm\", head: \"lm_head\" } }";

    const GPT2: &str = "Architecture { vocab_size: 304, hidden_size: 20, intermediate_size: 48, \
        layers: 2, heads: 2, kv_heads: 2, head_dim: 10, max_positions: 128, norm_epsilon: 1e-5, \
        norm_bias: true, parallel_residual: false, rotary: Learned(\"transformer.wpe\"), \
        fused_qkv: false, attention_bias: (true, true), windows: [None, None], gated: false, \
        mlp_bias: true, tied: true, initializer_range: 0.02, zero_row: None, \
        names: Names { embed: \"transformer.wte\", block: \"transformer.h.\", norm1: \"ln_1\", \
        qkv: [\"attn.c_attn\"], qk_norm: None, attention_out: \"attn.c_proj\", norm2: \"ln_2\", \
        mlp_in: [\"mlp.c_fc\"], mlp_out: \"mlp.c_proj\", final_norm: \"transformer.ln_f\", \
        head: \"lm_head\" }, activation: GeluTanh, conv1d: true, stacked: true }";

    const MIXTRAL: &str = "Architecture { vocab_size: 340, hidden_size: 16, intermediate_size: 11, \
        layers: 2, heads: 2, kv_heads: 1, head_dim: 8, max_positions: 256, norm_epsilon: 1e-5, \
        norm_bias: false, parallel_residual: false, rotary: Rotary { dim: 8, theta: 500.0, \
        scaling: None }, fused_qkv: false, attention_bias: (false, false), windows: [None, None], \
        gated: true, mlp_bias: false, tied: false, initializer_range: 0.02, zero_row: Some(0), \
        names: Names { embed: \"model.embed_tokens\", block: \"model.layers.\", \
        norm1: \"input_layernorm\", qkv: [\"self_attn.q_proj\", \"self_attn.k_proj\", \
        \"self_attn.v_proj\"], qk_norm: None, attention_out: \"self_attn.o_proj\", \
        norm2: \"post_attention_layernorm\", mlp_in: [\"mlp.gate_proj\", \"mlp.up_proj\"], \
        mlp_out: \"mlp.down_proj\", final_norm: \"model.norm\", head: \"lm_head\" }, \
        experts: Experts { layers: [true, true], count: 4, per_token: 2, normalized: true, \
        kind: Silu, width: 11, router: \"block_sparse_moe.gate\", weights: Separate { \
        prefix: \"block_sparse_moe.experts.\", parts: [\"w1\", \"w3\", \"w2\"] } } }";

    #[test]
    fn the_text_is_that_of_the_first_version() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        for (name, want) in [
            ("neox", NEOX),
            ("qwen3", QWEN3),
            ("gpt2", GPT2),
            ("mixtral", MIXTRAL),
        ] {
            let folder = ModelFolder::open(&fixtures.join(name)).unwrap();
            assert_eq!(format!("{:?}", Identity(&folder.arch)), want);
        }
    }
}
