//! One transformer block: attention and feed-forward network around the residual stream.
//!
//! *Why*: the backward pass works in the memory of the gradient that it is given, so that a block
//! moves little beside its matmuls. What nothing trained needs is not computed.

use candle_core::Tensor;

use super::arch::{Architecture, Residual};
use super::attention::{self, Attention};
use super::branch::{Branch, Read};
use super::ffn::{self, Ffn};
use super::linear::Linear;
use super::parameters::{Layout, Params, Weights};
use super::skipped::SkippedInBlock;
use crate::error::Result;
use crate::kernels::attention::Packing;
use crate::kernels::dropout::{Dropout, RowKeys};
use crate::kernels::embedding::Ids;
use crate::kernels::kv_cache::{KvCache, Places};
use crate::kernels::rotary::Angles;
use crate::kernels::{embedding, norm};

/// A block by its places in the flat buffers.
#[derive(Debug)]
pub(super) struct Block {
    residual: Residual,
    attention_branch: Branch,
    attention: Attention,
    ffn_branch: Branch,
    ffn: Ffn,
}

/// What a block's backward pass needs. Outputs of norms are made again from what norms keep.
pub(super) struct Activations {
    attention_read: Read,
    attention: attention::Activations,
    attention_end: Option<norm::Saved>,
    feed_forward: FeedForward,
}

/// What the feed-forward network and its branch keep.
struct FeedForward {
    read: Read,
    ffn: ffn::Activations,
    end: Option<norm::Saved>,
}

/// Which tokens see which, and whose output is wanted.
pub(super) struct QueryRange {
    pub packing: Packing,
    /// (queries): the tokens whose output is wanted, in order; all where `None`.
    pub rows: Option<Ids>,
    /// Their keys, where low-rank products drop some of their inputs; those of all tokens where `None`.
    pub keys: Option<RowKeys>,
}

impl QueryRange {
    /// The weights as these tokens are computed with them behind attention.
    fn of_queries<'a>(&'a self, weights: Weights<'a>) -> Weights<'a> {
        let dropout = weights.dropout.map(|dropout| Dropout {
            keys: self.keys.as_ref().unwrap_or(dropout.keys),
            ..dropout
        });
        Weights { dropout, ..weights }
    }
}

impl Activations {
    /// Keys and values of all tokens, (tokens, kv_heads, head_dim).
    pub(super) fn keys_values(&self) -> (&Tensor, &Tensor) {
        let projected = &self.attention.projected;
        (&projected.k, &projected.v)
    }

    #[cfg(test)]
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let reads = [&self.attention_read, &self.feed_forward.read];
        let ends = [&self.attention_end, &self.feed_forward.end];
        let norms = ends.into_iter().flatten().flat_map(norm::Saved::tensors);
        reads
            .into_iter()
            .flat_map(Read::tensors)
            .chain(norms)
            .chain(self.attention.tensors())
            .chain(self.feed_forward.ffn.tensors())
            .collect()
    }
}

impl Block {
    /// That of a layer.
    pub(super) fn new(arch: &Architecture, layout: &Layout, layer: usize) -> Self {
        let names = &arch.names;
        let branch = |norms| Branch::new(arch, layout, layer, norms);
        Self {
            residual: arch.residual,
            attention_branch: branch([&names.attention_norm, &names.attention_post_norm]),
            attention: Attention::new(arch, layout, layer),
            ffn_branch: branch([&names.ffn_norm, &names.ffn_post_norm]),
            ffn: Ffn::new(arch, layout, layer),
        }
    }

    /// Whether any of it is trained.
    pub(super) fn trainable(&self) -> bool {
        let branches = [&self.attention_branch, &self.ffn_branch];
        let norms = |branch: &Branch| branch.norm_trainable() || branch.post_norm_trainable();
        branches.into_iter().any(norms)
            || self.attention.trainable_before_out()
            || self.attention.out.trainable()
            || self.ffn.trainable()
    }

    /// `x` (tokens, hidden) -> (queries, hidden): the outputs that `range` wants.
    pub(super) fn forward(
        &self,
        weights: Weights,
        x: &Tensor,
        angles: Option<&Angles>,
        range: &QueryRange,
    ) -> Result<(Tensor, Activations)> {
        let (h, attention_read) = self.read_attention(weights, x)?;
        let projected = self.attention.project(weights, &h, angles)?;
        drop(h);
        let attention = self.attention.attend(weights, projected, &range.packing)?;
        let x = match &range.rows {
            Some(rows) => &embedding::gather(x, rows, x.dtype())?,
            None => x,
        };
        let weights = range.of_queries(weights);
        let (y, attention_end, feed_forward) = self.finish(weights, x, &attention.attended)?;
        let activations = Activations {
            attention_read,
            attention,
            attention_end,
            feed_forward,
        };
        Ok((y, activations))
    }

    /// The bytes of the matrices that a token reads.
    pub(super) fn bytes(&self, weights: Weights) -> u64 {
        let all = self.attention.inputs().iter().chain([&self.attention.out]);
        all.map(|linear| linear.bytes(weights)).sum::<u64>() + self.ffn.bytes(weights)
    }

    /// One new token for each row of a step, `x` (rows, hidden), after those of its sequence in
    /// `cache`, which gets its keys and values.
    pub(super) fn extend(
        &self,
        weights: Weights,
        x: &Tensor,
        (angles, places): (Option<&Angles>, &Places),
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let (h, _) = self.read_attention(weights, x)?;
        let (projected, _) = self.attention.project(weights, &h, angles)?;
        let attended = self.attention.extend(&projected, places, cache)?;
        Ok(self.finish(weights, x, &attended)?.0)
    }

    /// What attention reads of the stream, and what its branch keeps.
    fn read_attention(&self, weights: Weights, x: &Tensor) -> Result<(Tensor, Read)> {
        self.attention_branch.read(weights, x)
    }

    /// From the block's input and what attention gave, (n, heads * head_dim), to its output; and what
    /// attention's norm after it, and the feed-forward network, keep.
    fn finish(
        &self,
        weights: Weights,
        x: &Tensor,
        attended: &Tensor,
    ) -> Result<(Tensor, Option<norm::Saved>, FeedForward)> {
        let out = &self.attention.out;
        let feed_forward = |x: &Tensor, mut y: Tensor| -> Result<_> {
            let (h, read) = self.ffn_branch.read(weights, x)?;
            let ffn = self.ffn.forward(weights, &h, &mut y)?;
            let (y, end) = self.ffn_branch.end(weights, x, y)?;
            Ok((y, FeedForward { read, ffn, end }))
        };
        match self.residual {
            // Both branches are added as they are.
            Residual::Parallel => {
                let mut y =
                    self.attention_branch
                        .start(weights, x, [Some(out), self.ffn.last()])?;
                out.add_product(weights, attended, &mut y)?;
                let (y, feed_forward) = feed_forward(x, y)?;
                Ok((y, None, feed_forward))
            }
            Residual::Sequential => {
                let mut given = self.attention_branch.start(weights, x, [Some(out)])?;
                out.add_product(weights, attended, &mut given)?;
                let (x, attention_end) = self.attention_branch.end(weights, x, given)?;
                let y = self.ffn_branch.start(weights, &x, [self.ffn.last()])?;
                let (y, feed_forward) = feed_forward(&x, y)?;
                Ok((y, attention_end, feed_forward))
            }
        }
    }

    /// Adds the block's weight gradients; turns the gradient of its output, `dy` (queries, hidden),
    /// which nobody else may hold, into that of its input, (tokens, hidden), where anything `below` is
    /// trained.
    pub(super) fn backward(
        &self,
        weights: Weights,
        mut dy: Tensor,
        activations: Activations,
        (angles, range): (Option<&Angles>, &QueryRange),
        below: bool,
        into: &mut Params,
    ) -> Result<Option<Tensor>> {
        let Activations {
            attention_read,
            attention,
            attention_end,
            feed_forward: FeedForward { read, ffn, end },
        } = activations;
        let dtype = into.flat().dtype();
        let wants = self.wants(below);
        let all = weights;
        let weights = range.of_queries(weights);
        let attention_out = |dout: &Tensor, into: &mut Params| -> Result<Option<Tensor>> {
            let attended = &attention.attended;
            self.attention
                .backward_out(weights, dout, attended, wants.attended, into)
        };
        let like = &attention.attended;
        let dout = self
            .ffn_branch
            .backward_end(weights, &dy, end.as_ref(), like, into)?;
        drop(end);
        let mut dattended = None;
        // In the sequential layout the feed-forward's gradient also reaches attention.
        if self.residual == Residual::Parallel {
            dattended = attention_out(&dout, into)?;
        }
        let dinputs = self
            .ffn
            .backward_down(weights, &dout, &ffn, wants.ffn_inputs, into)?;
        drop((dout, ffn));
        if let Some(dinputs) = dinputs {
            let h = || self.ffn_branch.read_again(weights, &read);
            let wanted = wants.ffn_read.then_some(dtype);
            let dh = self
                .ffn
                .backward_inputs(weights, &dinputs, h, wanted, into)?;
            if let Some(dh) = dh {
                self.ffn_branch
                    .backward_read(weights, &dh, &read, into, &mut dy)?;
            }
        }
        drop(read);
        if self.residual == Residual::Sequential && wants.attention {
            let dout = self.attention_branch.backward_end(
                weights,
                &dy,
                attention_end.as_ref(),
                like,
                into,
            )?;
            dattended = attention_out(&dout, into)?;
        }
        drop(attention_end);
        let Some(dattended) = dattended else {
            return Ok(None);
        };
        let batch = (angles, &range.packing);
        let dqkv = self
            .attention
            .backward_attend(weights, dattended, attention, batch, into)?;
        let h = || self.attention_branch.read_again(weights, &attention_read);
        let wanted = wants.attention_read.then_some(dtype);
        let dh = self
            .attention
            .backward_inputs(all, &dqkv, h, wanted, into)?;
        let Some(dh) = dh else {
            return Ok(None);
        };
        let mut dx = match &range.rows {
            Some(rows) => {
                let mut dx = dh.zeros_like()?;
                embedding::scatter_add(&dy, rows, &mut dx)?;
                dx
            }
            None => dy,
        };
        self.attention_branch
            .backward_read(weights, &dh, &attention_read, into, &mut dx)?;
        Ok(below.then_some(dx))
    }

    /// What the backward pass leaves out; `below` as in [`Self::backward`].
    pub(super) fn skipped(&self, layout: &Layout, below: bool) -> SkippedInBlock {
        let wants = self.wants(below);
        let inputs = |layers: &[Linear], wanted: bool| -> usize {
            layers
                .iter()
                .map(|layer| layer.skipped(layout, wanted))
                .sum()
        };
        SkippedInBlock {
            qkv: inputs(self.attention.inputs(), wants.attention_read),
            rest: self.attention.out.skipped(layout, wants.attended)
                + self.ffn.skipped(layout, wants.ffn_read, wants.ffn_inputs),
            attention: !wants.attended,
        }
    }

    /// The gradients that something trained needs, in this block or `below` it.
    fn wants(&self, below: bool) -> Wants {
        let attention_read = below || self.attention_branch.norm_trainable();
        let attended = attention_read || self.attention.trainable_before_out();
        let attention = attended
            || self.attention.out.trainable()
            || self.attention_branch.post_norm_trainable();
        let through_ffn = below || (attention && self.residual == Residual::Sequential);
        let ffn_read = through_ffn || self.ffn_branch.norm_trainable();
        Wants {
            attention_read,
            attended,
            attention,
            ffn_read,
            ffn_inputs: ffn_read || self.ffn.trainable_before_outputs(),
        }
    }
}

/// The gradients that a block's backward pass computes.
struct Wants {
    /// Of attention's input.
    attention_read: bool,
    /// Of what attention's output projection reads.
    attended: bool,
    /// Of attention's output.
    attention: bool,
    /// Of the feed-forward network's input.
    ffn_read: bool,
    /// Of the activation's inputs.
    ffn_inputs: bool,
}
