//! A decoder's architecture as data, and the reading of `config.json` that all families share.
//!
//! *Why*: one decoder serves every family. What differs between families is numbers, names and the
//! variants of a few enums; a trait of the decoder that no family had before is one variant more.

mod config_json;
mod identity;
mod rotary;

use crate::kernels::attention::Scores;

pub use self::config_json::ConfigJson;
pub(super) use self::identity::Identity;
pub use self::rotary::{Keys as RotaryKeys, Rotary, Scaling};
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
    /// The longest sequence the model was made for.
    pub max_positions: usize,
    /// Every norm's kind: of the residual stream, of queries and keys, before the head.
    pub norm: Norm,
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
    /// Each layer's sliding window: how many tokens a token sees, itself included; `None` is all.
    pub windows: Vec<Option<usize>>,
    /// Bias on query, key and value; on the attention's output.
    pub attention_bias: (bool, bool),
    /// The feed-forward network.
    pub ffn: Ffn,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Standard deviation of a fresh matrix.
    pub initializer_range: f64,
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
    /// Queries and keys are rotated, in every layer alike.
    Rotary(Rotary),
}

/// The projections of queries, keys and values, by their names in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Qkv {
    /// One each for query, key and value.
    Separate([String; 3]),
    /// One whose rows are (heads, 3, head_dim): query, key and value head by head (GPT-NeoX).
    HeadInterleaved(String),
}

/// The norms of queries and keys, by their names in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QkNorm {
    /// Of query and key, over each head; all heads share the weights.
    PerHead([String; 2]),
}

/// A feed-forward network, by its names in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ffn {
    /// `down(gelu(up(x)))`.
    Gelu {
        /// Which GELU.
        kind: Gelu,
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
        kind: Gate,
        /// Width between the projections.
        width: usize,
        /// Whether the projections have a bias.
        bias: bool,
        /// The projection that the activation takes.
        gate: String,
        /// The projection that the gate scales.
        up: String,
        /// The projection back.
        down: String,
    },
}

/// Kinds of GELU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// By the normal distribution function (Hendrycks and Gimpel 2016).
    Exact,
}

/// Activations of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// `x sigmoid(x)`: SwiGLU (Shazeer 2020).
    Silu,
}

/// Parameter names without `.weight` and `.bias`; those of a block come after `{block}{layer}.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The embedding.
    pub embed: String,
    /// What the names of a block's parameters begin with, before the layer's number.
    pub block: String,
    /// The norm before attention.
    pub attention_norm: String,
    /// Attention's output projection.
    pub attention_out: String,
    /// The norm before the feed-forward network.
    pub ffn_norm: String,
    /// The norm before the head.
    pub final_norm: String,
    /// The head, where it is not the embedding.
    pub head: String,
}

impl Architecture {
    /// How a layer's attention scores are made.
    pub fn scores(&self, layer: usize) -> Scores {
        Scores {
            scale: self.attention_scale,
            window: self.windows[layer],
        }
    }

    /// Elements of a token's queries, keys and values.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// The rotated elements of a head.
    pub fn rotated(&self) -> usize {
        match &self.positions {
            Positions::Rotary(rotary) => rotary.dim,
        }
    }

    /// The name of a block's parameter, without `.weight` and `.bias`.
    pub fn block_name(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}", self.names.block)
    }
}

impl Ffn {
    /// Elements of a token between the projections.
    pub fn width(&self) -> usize {
        match self {
            Self::Gelu { width, .. } | Self::Gated { width, .. } => *width,
        }
    }

    /// Whether its projections have a bias.
    pub fn bias(&self) -> bool {
        match self {
            Self::Gelu { bias, .. } | Self::Gated { bias, .. } => *bias,
        }
    }

    /// Elements of a token that the activation reads.
    pub fn activation_inputs(&self) -> usize {
        match self {
            Self::Gelu { width, .. } => *width,
            Self::Gated { width, .. } => 2 * width,
        }
    }
}
