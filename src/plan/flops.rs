//! Floating-point operations of a run, by what the decoder computes.
//!
//! Counted are matmuls, a multiplication and an addition for each pair of elements, and
//! the same of attention, for each pair of a token and one that it sees. A prompt is computed once for
//! all its responses. The last block computes its queries, keys and values of all tokens and the rest
//! only where the head reads; of experts those that a token uses; the head computes logits only where a token is predicted. What is done
//! elementwise is not counted.

use serde::Serialize;

use super::rows::Work;
use crate::model::arch::Architecture;
use crate::model::skipped::{Skipped, SkippedInBlock};

/// Floating-point operations, part by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Flops {
    /// The forward pass.
    pub forward: f64,
    /// The backward pass.
    pub backward: f64,
    /// What `recompute` adds: the forward pass of all blocks but the last once more.
    pub recompute: f64,
    /// Logits that are computed a second time, of examples longer than a tile.
    pub logits: f64,
    /// Scoring a batch beforehand, where the loss reads a statistic of it.
    pub statistic: f64,
    /// What it takes to score each batch under a reference that moves.
    pub reference: f64,
}

impl Flops {
    /// Counts one pass over `trained` with gradient, and over the others without.
    /// Of the first, `skipped` is not computed.
    pub fn of(
        arch: &Architecture,
        skipped: &Skipped,
        trained: &Work,
        statistic: &Work,
        referenced: &Work,
    ) -> Self {
        Self {
            forward: forward(arch, trained),
            backward: FlopsByKernel::backward(arch, skipped, trained).total(),
            recompute: FlopsByKernel::recompute(arch, skipped, trained).total(),
            logits: FlopsByKernel::logits_again(arch, trained).total(),
            statistic: forward(arch, statistic),
            reference: forward(arch, referenced),
        }
    }

    /// All parts that a run with or without `recompute` has; `online`: with the reference's.
    pub fn total(&self, recompute: bool, online: bool) -> f64 {
        let of = |part: f64, there: bool| if there { part } else { 0.0 };
        self.forward
            + self.backward
            + self.logits
            + self.statistic
            + of(self.recompute, recompute)
            + of(self.reference, online)
    }

    /// Every part times `share`.
    #[must_use]
    pub fn times(&self, share: f64) -> Self {
        Self {
            forward: share * self.forward,
            backward: share * self.backward,
            recompute: share * self.recompute,
            logits: share * self.logits,
            statistic: share * self.statistic,
            reference: share * self.reference,
        }
    }
}

/// A pass without gradient.
pub fn forward(arch: &Architecture, work: &Work) -> f64 {
    FlopsByKernel::forward(arch, work).total()
}

/// Floating-point operations by the kernels that compute them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FlopsByKernel {
    /// Matmuls with the weights of blocks.
    pub matmuls: f64,
    /// Attention.
    pub attention: f64,
    /// Matmuls with the weight of the head.
    pub head: f64,
}

impl FlopsByKernel {
    /// A pass without gradient.
    pub fn forward(arch: &Architecture, work: &Work) -> Self {
        let (fused, rest, attention, head) = per_element(arch);
        let layers = arch.layers as f64;
        let rest_of = (layers - 1.0) * work.tokens + work.queries;
        Self {
            matmuls: fused * layers * work.tokens + rest * rest_of,
            attention: attention * (work.pairs + work.last_pairs),
            head: head * work.predictions,
        }
    }

    /// A backward pass: a matmul's two gradients take twice its operations; attention's scores are
    /// computed again, and four matmuls' gradients follow.
    fn backward(arch: &Architecture, skipped: &Skipped, work: &Work) -> Self {
        let forward = Self::forward(arch, work);
        let left_out = Self::left_out(arch, skipped, work);
        Self {
            matmuls: 2.0 * forward.matmuls - left_out.matmuls,
            attention: 2.5 * forward.attention - left_out.attention,
            head: 2.0 * forward.head - left_out.head,
        }
    }

    /// The forward pass, once more, of the blocks that the backward pass reaches but the last.
    fn recompute(arch: &Architecture, skipped: &Skipped, work: &Work) -> Self {
        let (fused, rest, attention, _) = per_element(arch);
        let before = arch.layers - 1;
        let reached = before.saturating_sub(skipped.lowest) as f64;
        Self {
            matmuls: (fused + rest) * reached * work.tokens,
            attention: attention * work.pairs * reached / before.max(1) as f64,
            head: 0.0,
        }
    }

    /// Logits that are computed a second time.
    fn logits_again(arch: &Architecture, work: &Work) -> Self {
        let (.., head) = per_element(arch);
        Self {
            head: head * work.again,
            ..Self::default()
        }
    }

    /// A pass with gradient, of which `skipped` is not computed.
    pub fn step(arch: &Architecture, skipped: &Skipped, work: &Work, recompute: bool) -> Self {
        let pass = Self::forward(arch, work)
            .plus(1.0, Self::backward(arch, skipped, work))
            .plus(1.0, Self::logits_again(arch, work));
        match recompute {
            true => pass.plus(1.0, Self::recompute(arch, skipped, work)),
            false => pass,
        }
    }

    /// The operations of a backward pass that are `skipped`.
    fn left_out(arch: &Architecture, skipped: &Skipped, work: &Work) -> Self {
        let (.., attention, _) = per_element(arch);
        let before = arch.layers - 1;
        let of_block = |(layer, block): (usize, &SkippedInBlock)| {
            let (queries, pairs) = match layer < before {
                true => (work.tokens, work.pairs / before as f64),
                false => (work.queries, work.last_pairs),
            };
            let pairs = if block.attention { pairs } else { 0.0 };
            Self {
                matmuls: 2.0 * (block.qkv as f64 * work.tokens + block.rest as f64 * queries),
                attention: 2.5 * attention * pairs,
                head: 0.0,
            }
        };
        let head = Self {
            head: 2.0 * skipped.head as f64 * work.predictions,
            ..Self::default()
        };
        let blocks = skipped.blocks.iter().enumerate().map(of_block);
        blocks.fold(head, |sum, block| sum.plus(1.0, block))
    }

    /// `self + share * other`.
    #[must_use]
    pub fn plus(self, share: f64, other: Self) -> Self {
        Self {
            matmuls: self.matmuls + share * other.matmuls,
            attention: self.attention + share * other.attention,
            head: self.head + share * other.head,
        }
    }

    /// Their sum.
    pub fn total(&self) -> f64 {
        self.matmuls + self.attention + self.head
    }
}

/// Of the forward pass: a token's queries, keys and values; the rest of a block for a token;
/// attention for a token and one that it sees; the head for a token.
fn per_element(arch: &Architecture) -> (f64, f64, f64, f64) {
    let hidden = arch.hidden_size as f64;
    let attended = (arch.heads * arch.head_dim) as f64;
    let projected = arch.qkv_width() as f64;
    let rest = attended + arch.ffn_columns();
    (
        2.0 * hidden * projected,
        2.0 * hidden * rest,
        4.0 * attended,
        2.0 * hidden * arch.vocab_size as f64,
    )
}
