//! The least time that a run takes on a device.
//!
//! ```text
//! time >= FLOPs / rate of large matmuls
//!       + bytes that elementwise operations and those on logits move / bandwidth
//!       + bytes that the optimizer moves / bandwidth
//! ```
//!
//! A sum, since none of these overlap on a device. Products are taken as if all of them were large,
//! their own traffic is not counted, nor are starts of kernels, reading rows, writing files and
//! loading a model: a run takes at least as long.

use serde::Serialize;

use super::bytes::Bytes;
use super::rows::Work;
use super::{Device, Rates};
use crate::config::Config;
use crate::model::arch::{Architecture, QkNorm, Qkv, Residual};
use crate::model::parameters::Layout;
use crate::optim::States;

/// Seconds, at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Products of matrices, and attention.
    pub products: f64,
    /// Elementwise operations.
    pub elementwise: f64,
    /// Clearing gradients, their norm, and the update.
    pub optimizer: f64,
}

impl Seconds {
    /// Of so many operations and bytes.
    pub fn of(rates: &Rates, flops: f64, elementwise: f64, optimizer: f64) -> Self {
        Self {
            products: flops / rates.flops,
            elementwise: elementwise / rates.bandwidth,
            optimizer: optimizer / rates.bandwidth,
        }
    }

    /// Their sum.
    pub fn total(&self) -> f64 {
        self.products + self.elementwise + self.optimizer
    }
}

/// Bytes that clearing gradients, their norm and an update read and write: per parameter that is trained 4
/// to clear, 4 for the norm, 4 to read gradients, and weights and moments once each way. With AdamW 36 in
/// f32, 24 with moments in 8 bits; in bf16 on a GPU 38, or 28 with `states = "split"`.
pub fn update_bytes(config: &Config, device: &Device, layout: &Layout) -> u64 {
    let bytes = Bytes::of(config, device);
    let weights = match (bytes.mixed, config.optimizer.states) {
        (false, _) | (true, States::Split) => 8,
        // Of the bf16 weights nothing is read: they are the f32 ones rounded.
        (true, States::F32) => 8 + 2,
    };
    (12 + weights) * layout.trainable_len as u64 + 2 * bytes.moments(config, layout)
}

/// Bytes that elementwise operations read and write, each operand counted once per kernel: norms,
/// rotations, the residual stream's copies and casts, activations, biases that matmuls begin with and
/// their gradients' sums, buffers that are cleared, the embedding, and the logits' statistics and
/// gradient. The backward pass ends at the block `lowest`. Not counted: what matmuls and attention move,
/// and what is done only of predicted tokens beside their logits.
pub fn elementwise_bytes(
    config: &Config,
    device: &Device,
    arch: &Architecture,
    lowest: usize,
    work: &Work,
) -> Moved {
    let bytes = Bytes::of(config, device);
    let (element, f32) = (bytes.activation as f64, 4.0);
    let stream = f32 * arch.hidden_size as f64;
    let normed = element * arch.hidden_size as f64;
    let heads = (arch.heads + arch.kv_heads) as f64;
    let rotated = 2.0 * element * heads * arch.rotated() as f64;
    let intermediate = element * arch.ffn_width();
    let inputs = element * arch.activation_inputs();
    let projected = element * arch.qkv_width() as f64;
    let where_so = |so: bool, bytes: f64| if so { bytes } else { 0.0 };
    let (qkv_bias, out_bias) = arch.attention_bias;
    let ffn_bias = arch.ffn.bias();
    let head_norms = match arch.qk_norm {
        // Copied out, normed, copied back; backward twice as much.
        Some(QkNorm::PerHead(_) | QkNorm::Whole(_)) => 6.0 * element * heads * arch.head_dim as f64,
        None => 0.0,
    };
    let branches = match arch.residual {
        Residual::Parallel => 1.0,
        Residual::Sequential => 2.0,
    };
    // Separate projections write into columns of a cleared buffer; a bias is where a matmul begins.
    let separate = where_so(matches!(arch.qkv, Qkv::Separate(_)), projected);
    // What a branch gives is made apart from the stream where something comes after it.
    let scaled = arch.multipliers.residual != 1.0;
    let posts = arch.names.post_norms() as f64;
    let apart = if scaled { branches } else { posts };
    let after = apart * (3.0 * stream + normed) + posts * (stream + normed);
    let after_back = apart * 3.0 * stream + posts * 5.0 * stream;
    // Tokens are sorted by expert, weighed and added up again.
    let experts = arch.experts.as_ref().map_or(0.0, |e| {
        (e.layer_count() * e.per_token) as f64 / arch.layers as f64
    });
    let sorted = experts * (2.0 * normed + 5.0 * stream);
    let sorted_back = experts * (4.0 * normed + 5.0 * stream);
    // Of all tokens, and of those that the last block computes whole.
    let first = stream + normed + separate + where_so(qkv_bias, projected) + rotated + head_norms;
    let rest = stream
        + normed
        + branches * 2.0 * stream
        + after
        + sorted
        + where_so(ffn_bias, inputs)
        + inputs
        + intermediate;
    // A norm's output again, and its gradient, from one in f32, added to the stream's.
    let norm_back = (stream + normed) + 4.0 * stream;
    let first_back =
        norm_back + projected + rotated + 2.0 * head_norms + where_so(qkv_bias, projected);
    let rest_back = norm_back
        + after_back
        + sorted_back
        + where_so(bytes.mixed, branches * (stream + normed))
        + where_so(out_bias, normed)
        + where_so(ffn_bias, normed + inputs)
        + 2.0 * (intermediate + inputs);
    let last = arch.layers - 1;
    // Over the blocks from `from` on; the last computes the rest of queries only.
    let sum = |from: usize, first: f64, rest: f64| {
        let blocks = (arch.layers - from) as f64;
        let queries = if from <= last { work.queries } else { 0.0 };
        let whole = last.saturating_sub(from) as f64;
        first * blocks * work.tokens + rest * (whole * work.tokens + queries)
    };
    let logits = f32 * arch.vocab_size as f64;
    // The gradient takes the place of logits in f32.
    let gradient = element * arch.vocab_size as f64;
    Moved {
        forward: sum(0, first, rest) + (normed + stream) * work.tokens,
        backward: sum(lowest, first_back, rest_back)
            + where_so(lowest == 0, 3.0 * stream * work.tokens),
        recompute: (first + rest) * last.saturating_sub(lowest) as f64 * work.tokens,
        logits: logits * work.predictions,
        logits_backward: (logits + gradient) * work.predictions + logits * work.again,
    }
}

/// Bytes that elementwise operations move.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moved {
    /// In the forward pass, before the logits.
    pub forward: f64,
    /// In the backward pass, after the logits' gradient.
    pub backward: f64,
    /// What `recompute` adds.
    pub recompute: f64,
    /// By the logits' statistics.
    pub logits: f64,
    /// By the logits' gradient, and by the statistics of those that are computed again for it.
    pub logits_backward: f64,
}

impl Moved {
    /// Of a pass without gradient.
    pub fn scoring(&self) -> f64 {
        self.forward + self.logits
    }

    /// Of a pass with gradient, without what is done of logits.
    pub fn blocks(&self, recompute: bool) -> f64 {
        let again = if recompute { self.recompute } else { 0.0 };
        self.forward + self.backward + again
    }

    /// Of a pass with gradient, what is done of logits.
    pub fn head(&self) -> f64 {
        self.logits + self.logits_backward
    }
}
