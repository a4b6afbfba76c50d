//! A decoder's architecture as data, and the reading of `config.json` that all families share.
//!
//! *Why*: one decoder serves every family. What differs between families is numbers, names and the
//! variants of a few enums; a trait of the decoder that no family had before is one variant more.

mod config_json;
mod identity;
mod rotary;

use crate::kernels::Precision;
use crate::kernels::attention::Scores;

pub use self::config_json::ConfigJson;
pub(super) use self::identity::Identity;
pub use self::rotary::{Keys as RotaryKeys, LayerKeys as RotaryLayerKeys, Rotary, Scaling};
pub use crate::kernels::activation::Activation;
pub use crate::kernels::norm::Norm;

/// Everything the decoder must know of a model, with Hugging Face's parameter names.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Rows of the embedding; at least the tokenizer's number of ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of blocks.
    pub layers: usize,
    /// `max_position_embeddings`; see [`longest_sequence`](Self::longest_sequence).
    pub max_positions: usize,
    /// Every norm's kind: of the residual stream, of queries and keys, before the head.
    pub norm: Norm,
    /// Factors on the embedding, on what is added to the residual stream, and on the logits.
    pub multipliers: Multipliers,
    /// What the feed-forward network reads.
    pub residual: Residual,
    /// How a token's position enters the computation.
    pub positions: Positions,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; `heads` is a multiple of it.
    pub kv_heads: usize,
    /// Width of a head; heads * head_dim need not equal the hidden size.
    pub head_dim: usize,
    /// The projections of queries, keys and values.
    pub qkv: Qkv,
    /// The norms of queries and keys, before positions enter, where there are any.
    pub qk_norm: Option<QkNorm>,
    /// The factor of a query's dot products with keys.
    pub attention_scale: f64,
    /// `c` where attention scores `s` become `c tanh(s / c)`, before the mask (Gemma 2).
    pub attention_softcap: Option<f64>,
    /// Each layer's sliding window: how many tokens a token sees, itself included; `None` is all.
    pub windows: Vec<Option<usize>>,
    /// Bias on query, key and value; on the attention's output.
    pub attention_bias: (bool, bool),
    /// The feed-forward network, of the layers without experts.
    pub ffn: Ffn,
    /// A mixture of experts in the place of the feed-forward network, in some layers or all.
    pub experts: Option<Experts>,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// `c` where logits `z` become `c tanh(z / c)` (Gemma 2).
    pub logit_softcap: Option<f64>,
    /// Whether the files have the matrices of blocks as (in, out), the transpose of what is computed with
    /// (GPT-2's `Conv1D`).
    pub conv1d: bool,
    /// Standard deviation of a fresh matrix.
    pub initializer_range: f64,
    /// Standard deviation of a fresh matrix whose product is added to the residual stream.
    pub residual_initializer_range: f64,
    /// A row of the embedding that starts as zeros: the family's padding token.
    pub zero_row: Option<usize>,
    /// The checkpoint's other names.
    pub names: Names,
}

/// The order of attention and feed-forward network around the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// The feed-forward network reads the stream after attention.
    Sequential,
    /// Both read the block's input (GPT-NeoX).
    Parallel,
}

/// How a token's position enters the computation.
#[derive(Debug, Clone, PartialEq)]
pub enum Positions {
    /// Queries and keys are rotated.
    Rotary {
        /// The rotations that there are, each once.
        tables: Vec<Rotary>,
        /// Each layer's place in `tables`; `None` where a layer rotates nothing.
        layers: Vec<Option<usize>>,
    },
    /// The row of a learned table at the position is added to the embedding (GPT-2); the table's name,
    /// as in [`Names`].
    Learned(String),
}

/// Factors of a family, each 1 where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multipliers {
    /// Of the embedding (Gemma, Granite).
    pub embedding: f64,
    /// Whether that of the embedding is first rounded to the dtype in which the weights are held (Gemma).
    pub embedding_rounded: bool,
    /// Of what attention and the feed-forward network add to the residual stream (Granite).
    pub residual: f64,
    /// Of the logits, before any soft cap (Granite).
    pub logits: f64,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self {
            embedding: 1.0,
            embedding_rounded: false,
            residual: 1.0,
            logits: 1.0,
        }
    }
}

/// The projections of queries, keys and values, by their names in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Qkv {
    /// One each for query, key and value.
    Separate([String; 3]),
    /// One, whose rows are those of query, then key, then value (Phi-3, GPT-2).
    Stacked(String),
    /// One whose rows are (heads, 3, head_dim): query, key and value head by head (GPT-NeoX).
    HeadInterleaved(String),
}

/// The norms of queries and keys, by their names in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QkNorm {
    /// Of query and key, over each head; all heads share the weights.
    PerHead([String; 2]),
    /// Of query and key, over all heads together (OLMo 2).
    Whole([String; 2]),
}

/// A feed-forward network, by its names in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ffn {
    /// `down(activation(up(x)))`.
    Plain {
        /// The activation.
        kind: Activation,
        /// Width between the projections.
        width: usize,
        /// Whether the projections have a bias.
        bias: bool,
        /// The projection to the width.
        up: String,
        /// The projection back.
        down: String,
    },
    /// `down(activation(gate(x)) * up(x))`.
    Gated {
        /// The gate's activation.
        kind: Activation,
        /// Width between the projections.
        width: usize,
        /// Whether the projections have a bias.
        bias: bool,
        /// The projections to the width.
        gate_up: GateUp,
        /// The projection back.
        down: String,
    },
}

/// Feed-forward networks of which each token uses a few: `sum over its experts of weight *
/// down(activation(gate(x)) * up(x))` (Shazeer et al. 2017; Jiang et al. 2024). The weights are the
/// largest of a softmax over all experts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    /// Whether each layer has experts.
    pub layers: Vec<bool>,
    /// How many there are in a layer.
    pub count: usize,
    /// How many a token uses.
    pub per_token: usize,
    /// Whether the weights of a token's experts are divided by their sum.
    pub normalized: bool,
    /// The gate's activation.
    pub kind: Activation,
    /// Width between the projections of one expert.
    pub width: usize,
    /// The projection to the logits of the experts, by its name in the block.
    pub router: String,
    /// The projections of the experts.
    pub weights: ExpertWeights,
}

/// The projections of experts, by their names in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpertWeights {
    /// One tensor for each expert and projection: `{prefix}{expert}.{part}`.
    Separate {
        /// What comes before the expert's number.
        prefix: String,
        /// Gate, up and down.
        parts: [String; 3],
    },
    /// All experts in two tensors, whose names have no `.weight`.
    Fused {
        /// (experts, 2 width, hidden): the rows of the gate, then those of up.
        gate_up: String,
        /// (experts, hidden, width).
        down: String,
    },
}

/// The two projections of a gated network that read its input, by their names in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateUp {
    /// The projection that the activation takes, and the one that the gate scales.
    Separate([String; 2]),
    /// One, whose rows are those of the gate, then of the other (Phi-3).
    Stacked(String),
}

/// Parameter names without `.weight` and `.bias`; those of a block come after `{block}{layer}.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The embedding.
    pub embed: String,
    /// What the names of a block's parameters begin with, before the layer's number.
    pub block: String,
    /// The norm before attention, where there is one.
    pub attention_norm: Option<String>,
    /// The norm of what attention gives, before it is added to the residual stream, where there is one.
    pub attention_post_norm: Option<String>,
    /// Attention's output projection.
    pub attention_out: String,
    /// The norm before the feed-forward network, where there is one.
    pub ffn_norm: Option<String>,
    /// The norm of what the feed-forward network gives, where there is one.
    pub ffn_post_norm: Option<String>,
    /// The norm before the head.
    pub final_norm: String,
    /// The head, where it is not the embedding.
    pub head: String,
}

impl Architecture {
    /// How a layer's attention scores are made, in full precision.
    pub fn scores(&self, layer: usize) -> Scores {
        Scores {
            scale: self.attention_scale,
            window: self.windows[layer],
            softcap: self.attention_softcap,
            precision: Precision::Full,
        }
    }

    /// Elements of a token's queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// The rotated elements of a head, of all rotations together.
    pub fn rotated(&self) -> usize {
        self.positions.tables().iter().map(|table| table.dim).sum()
    }

    /// Elements of a token that the activations of a layer read, those of its experts together, on
    /// average over layers.
    pub fn activation_inputs(&self) -> f64 {
        self.over_layers(self.ffn.activation_inputs(), |e| 2 * e.per_token * e.width)
    }

    /// Elements of a token between the projections of a layer's feed-forward network or experts, on
    /// average over layers.
    pub fn ffn_width(&self) -> f64 {
        self.over_layers(self.ffn.width(), |e| e.per_token * e.width)
    }

    /// Weights of a layer's feed-forward network, or of its router and the selected experts, that one
    /// token uses, divided by the hidden size; mean over layers.
    pub fn ffn_columns(&self) -> f64 {
        let dense = self.ffn.activation_inputs() + self.ffn.width();
        self.over_layers(dense, |e| e.count + 3 * e.per_token * e.width)
    }

    fn over_layers(&self, dense: usize, of_experts: impl Fn(&Experts) -> usize) -> f64 {
        let Some(experts) = &self.experts else {
            return dense as f64;
        };
        let with = experts.layer_count();
        let without = self.layers - with;
        (with * of_experts(experts) + without * dense) as f64 / self.layers as f64
    }

    /// Weights of the experts that a token is not routed to, in elements.
    pub fn unused(&self) -> u64 {
        self.experts.as_ref().map_or(0, |e| {
            (e.layer_count() * (e.count - e.per_token) * 3 * e.width * self.hidden_size) as u64
        })
    }

    /// A layer's experts, where it has any.
    pub fn experts(&self, layer: usize) -> Option<&Experts> {
        let experts = self.experts.as_ref();
        experts.filter(|experts| experts.layers[layer])
    }

    /// Whether the parameter of that name projects to the logits of experts.
    pub fn is_router(&self, name: &str) -> bool {
        let part = name.strip_prefix(self.names.block.as_str());
        let part = part
            .and_then(|rest| rest.split_once('.'))
            .map(|(_, part)| part);
        let router = self.experts.as_ref().map(|experts| &experts.router);
        part.zip(router)
            .is_some_and(|(part, router)| part.strip_suffix(".weight") == Some(router))
    }

    /// Whether rows of the parameter of that name are read by number: tokens or positions.
    pub fn is_table(&self, name: &str) -> bool {
        let positions = match &self.positions {
            Positions::Learned(table) => Some(table),
            Positions::Rotary { .. } => None,
        };
        let tables = [Some(&self.names.embed), positions];
        let name = name.strip_suffix(".weight");
        tables
            .into_iter()
            .flatten()
            .any(|table| name == Some(table))
    }

    /// Has every name that begins with `from` begin with `to`.
    pub fn rename(&mut self, from: &str, to: &str) {
        let names = &mut self.names;
        let learned = match &mut self.positions {
            Positions::Learned(name) => Some(name),
            Positions::Rotary { .. } => None,
        };
        let names = [
            &mut names.embed,
            &mut names.block,
            &mut names.final_norm,
            &mut names.head,
        ];
        for name in names.into_iter().chain(learned) {
            if let Some(rest) = name.strip_prefix(from) {
                *name = format!("{to}{rest}");
            }
        }
    }

    /// The name of the weight of a layer, which of a tied head is the embedding's.
    pub fn weight_of(&self, layer: &str) -> String {
        match self.tied && layer == self.names.head {
            true => format!("{}.weight", self.names.embed),
            false => format!("{layer}.weight"),
        }
    }

    /// The name of a block's parameter, without `.weight` and `.bias`.
    pub fn block_name(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}", self.names.block)
    }
}

impl Experts {
    /// How many layers have them.
    pub fn layer_count(&self) -> usize {
        self.layers.iter().filter(|&&has| has).count()
    }

    /// The same with the names and shapes that transformers 5 has in memory, and some files too.
    pub(super) fn fused(&self) -> Self {
        Self {
            router: "mlp.gate".into(),
            weights: ExpertWeights::Fused {
                gate_up: "mlp.experts.gate_up_proj".into(),
                down: "mlp.experts.down_proj".into(),
            },
            ..self.clone()
        }
    }
}

impl Names {
    /// The norms of the residual stream in a block.
    pub fn block_norms(&self) -> [Option<&String>; 4] {
        let norms = [
            &self.attention_norm,
            &self.attention_post_norm,
            &self.ffn_norm,
            &self.ffn_post_norm,
        ];
        norms.map(Option::as_ref)
    }

    /// How many norms of what a branch gives there are in a block.
    pub fn post_norms(&self) -> usize {
        let norms = [&self.attention_post_norm, &self.ffn_post_norm];
        norms.into_iter().flatten().count()
    }
}

impl Positions {
    /// The same rotation in every layer.
    pub fn rotary(rotary: Rotary, layers: usize) -> Self {
        Self::Rotary {
            tables: vec![rotary],
            layers: vec![Some(0); layers],
        }
    }

    /// The rotations that there are.
    pub fn tables(&self) -> &[Rotary] {
        match self {
            Self::Rotary { tables, .. } => tables,
            Self::Learned(_) => &[],
        }
    }

    /// A layer's rotation, by its place in [`Self::tables`].
    pub fn table(&self, layer: usize) -> Option<usize> {
        match self {
            Self::Rotary { layers, .. } => layers[layer],
            Self::Learned(_) => None,
        }
    }
}

impl Ffn {
    /// Elements of a token between the projections.
    pub fn width(&self) -> usize {
        match self {
            Self::Plain { width, .. } | Self::Gated { width, .. } => *width,
        }
    }

    /// Whether its projections have a bias.
    pub fn bias(&self) -> bool {
        match self {
            Self::Plain { bias, .. } | Self::Gated { bias, .. } => *bias,
        }
    }

    /// Elements of a token that the activation reads.
    pub fn activation_inputs(&self) -> usize {
        match self {
            Self::Plain { width, .. } => *width,
            Self::Gated { width, .. } => 2 * width,
        }
    }
}
