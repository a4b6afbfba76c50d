//! The least time that a run takes on a device.
//!
//! ```text
//! time >= FLOPs / rate of large products
//!       + bytes that operations element by element move / bandwidth
//!       + bytes that the optimizer moves / bandwidth
//! ```
//!
//! A sum, since none of these overlap on a device. Products are taken as if all of them were large,
//! their own traffic is not counted, nor are starts of kernels, reading rows, writing files and
//! loading a model: a run takes at least as long.

use serde::Serialize;

use super::memory::Bytes;
use super::rows::Work;
use super::{Device, Rates};
use crate::config::Config;
use crate::model::arch::{Architecture, QkNorm, Residual};
use crate::optim::{Method, States};

/// Seconds, at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Products of matrices, and attention.
    pub products: f64,
    /// Operations element by element.
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

/// Bytes that clearing gradients, their norm and an update read and write, per parameter: 4 to clear,
/// 4 for the norm, 4 to read gradients, moments and weights once each way. With AdamW 36 in f32; in
/// bf16 on a GPU 38, or 28 with `states = "split"`.
pub fn update_bytes(config: &Config, device: &Device) -> u64 {
    let moments = match config.optimizer.optim {
        Method::RmsProp => 1,
        Method::AdamW | Method::Adam => 2,
    };
    let stored = match (Bytes::of(config, device).mixed, config.optimizer.states) {
        (false, _) => 8 * moments + 8,
        // Of the bf16 weights nothing is read: they are the f32 ones rounded.
        (true, States::F32) => 8 * moments + 8 + 2,
        (true, States::Split) => 4 * moments + 8,
    };
    12 + stored
}

/// Bytes that operations element by element read and write in a forward pass, and if `gradient` in the
/// backward pass too, each operand counted once per operation: norms, rotations, sums onto the
/// residual stream, activations, and the logits' statistics. The backward pass ends at the block
/// `lowest`.
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
    let intermediate = element * arch.ffn.width() as f64;
    let inputs = element * arch.ffn.activation_inputs() as f64;
    let projected = arch.qkv_width() as f64;
    let head_norms = match arch.qk_norm {
        // Copied out, normed, copied back; backward twice as much.
        Some(QkNorm::PerHead(_)) => 6.0 * element * heads * arch.head_dim as f64,
        None => 0.0,
    };
    let sums = match arch.residual {
        Residual::Parallel => 1.0,
        Residual::Sequential => 2.0,
    };
    // Of all tokens, and of those that the last block computes whole.
    let first = stream + normed + rotated + head_norms;
    let rest = stream + normed + sums * 2.0 * stream + inputs + intermediate;
    // A norm's output again, and its gradient added to the stream's.
    let norm_back = (stream + normed) + (normed + 3.0 * stream);
    let first_back = norm_back + rotated + 2.0 * head_norms + element * projected;
    let rest_back = norm_back + 2.0 * (intermediate + inputs);
    let last = arch.layers - 1;
    // Over the blocks from `from` on; the last computes the rest of queries only.
    let sum = |from: usize, first: f64, rest: f64| {
        let blocks = (arch.layers - from) as f64;
        let queries = if from <= last { work.queries } else { 0.0 };
        let whole = last.saturating_sub(from) as f64;
        first * blocks * work.tokens + rest * (whole * work.tokens + queries)
    };
    let logits = arch.vocab_size as f64;
    let rounded = if bytes.mixed { 2.0 } else { 0.0 };
    Moved {
        forward: sum(0, first, rest) + f32 * logits * work.predictions,
        backward: sum(lowest, first_back, rest_back)
            + (2.0 * f32 + rounded) * logits * work.predictions,
        recompute: (first + rest) * last.saturating_sub(lowest) as f64 * work.tokens,
    }
}

/// Bytes moved element by element.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moved {
    /// In the forward pass.
    pub forward: f64,
    /// In the backward pass.
    pub backward: f64,
    /// What `recompute` adds.
    pub recompute: f64,
}

impl Moved {
    /// Of a pass with gradient.
    pub fn step(&self, recompute: bool) -> f64 {
        let again = if recompute { self.recompute } else { 0.0 };
        self.forward + self.backward + again
    }
}
