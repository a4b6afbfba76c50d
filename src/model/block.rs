//! One transformer block: attention and feed-forward network around the residual stream.
//!
//! *Why*: the backward pass works in the memory of the gradient that it is given, so that a block
//! moves little beside its matmuls. What nothing trained needs is not computed.

use candle_core::Tensor;

use super::arch::{Architecture, Residual};
use super::attention::{self, Attention};
use super::ffn::{self, Ffn};
use super::generate::size;
use super::linear::Linear;
use super::norm::NormLayer;
use super::parameters::{Layout, Params, Weights};
use super::skipped::SkippedInBlock;
use crate::error::Result;
use crate::kernels::attention::Packing;
use crate::kernels::embedding::Ids;
use crate::kernels::kv_cache::{KvCache, Places};
use crate::kernels::rotary::Angles;
use crate::kernels::{elementwise, embedding, norm};

/// A block by its places in the flat buffers.
#[derive(Debug)]
pub(super) struct Block {
    residual: Residual,
    /// Before attention.
    attention_norm: NormLayer,
    attention: Attention,
    /// Before the feed-forward network.
    ffn_norm: NormLayer,
    ffn: Ffn,
}

/// What a block's backward pass needs. Outputs of norms are made again from what norms keep.
pub(super) struct Activations {
    attention_norm: norm::Saved,
    attention: attention::Activations,
    ffn_norm: norm::Saved,
    ffn: ffn::Activations,
}

/// Which tokens see which, and whose output is wanted.
pub(super) struct QueryRange {
    pub packing: Packing,
    /// (queries): the tokens whose output is wanted, in order; all where `None`.
    pub rows: Option<Ids>,
}

impl Activations {
    /// Keys and values of all tokens, (tokens, kv_heads, head_dim).
    pub(super) fn keys_values(&self) -> (&Tensor, &Tensor) {
        let projected = &self.attention.projected;
        (&projected.k, &projected.v)
    }

    #[cfg(test)]
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let norms = [&self.attention_norm, &self.ffn_norm];
        norms
            .into_iter()
            .flat_map(norm::Saved::tensors)
            .chain(self.attention.tensors())
            .chain(self.ffn.tensors())
            .collect()
    }
}

impl Block {
    /// That of a layer.
    pub(super) fn new(arch: &Architecture, layout: &Layout, layer: usize) -> Self {
        let norm = |part: &str| NormLayer::new(layout, arch.norm, &arch.block_name(layer, part));
        Self {
            residual: arch.residual,
            attention_norm: norm(&arch.names.attention_norm),
            attention: Attention::new(arch, layout, layer),
            ffn_norm: norm(&arch.names.ffn_norm),
            ffn: Ffn::new(arch, layout, layer),
        }
    }

    /// Whether any of it is trained.
    pub(super) fn trainable(&self) -> bool {
        self.attention_norm.trainable()
            || self.attention.trainable_before_out()
            || self.attention.out.trainable()
            || self.ffn_norm.trainable()
            || self.ffn.inputs().iter().any(Linear::trainable)
            || self.ffn.down().trainable()
    }

    /// `x` (tokens, hidden) -> (queries, hidden): the outputs that `range` wants.
    pub(super) fn forward(
        &self,
        weights: Weights,
        x: &Tensor,
        angles: &Angles,
        range: &QueryRange,
    ) -> Result<(Tensor, Activations)> {
        let (h, attention_norm) = self.attention_norm.forward(weights, x)?;
        let projected = self.attention.project(weights, &h, angles)?;
        drop(h);
        let attention = self.attention.attend(projected, &range.packing)?;
        let x = match &range.rows {
            Some(rows) => &embedding::gather(x, rows, x.dtype())?,
            None => x,
        };
        let (y, ffn_norm, ffn) = self.finish(weights, x, &attention.attended)?;
        let activations = Activations {
            attention_norm,
            attention,
            ffn_norm,
            ffn,
        };
        Ok((y, activations))
    }

    /// The bytes of its matrices.
    pub(super) fn bytes(&self, weights: Weights) -> u64 {
        let inputs = self.attention.inputs().iter().chain(self.ffn.inputs());
        let all = inputs.chain([&self.attention.out, self.ffn.down()]);
        all.map(|linear| size(linear.weight(weights))).sum()
    }

    /// One new token for each row of a step, `x` (rows, hidden), after those of its sequence in
    /// `cache`, which gets its keys and values.
    pub(super) fn extend(
        &self,
        weights: Weights,
        x: &Tensor,
        (angles, places): (&Angles, &Places),
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let (h, _) = self.attention_norm.forward(weights, x)?;
        let (projected, _) = self.attention.project(weights, &h, angles)?;
        let attended = self.attention.extend(&projected, places, cache)?;
        Ok(self.finish(weights, x, &attended)?.0)
    }

    /// From the block's input and what attention gave, (n, heads * head_dim), to its output.
    fn finish(
        &self,
        weights: Weights,
        x: &Tensor,
        attended: &Tensor,
    ) -> Result<(Tensor, norm::Saved, ffn::Activations)> {
        let (out, down) = (&self.attention.out, self.ffn.down());
        let feed_forward = |read: &Tensor, y: &mut Tensor| -> Result<_> {
            let (h, saved) = self.ffn_norm.forward(weights, read)?;
            Ok((saved, self.ffn.forward(weights, &h, y)?))
        };
        match self.residual {
            Residual::Parallel => {
                let mut y = branch_from(x, weights, &[out, down])?;
                out.add_product(weights, attended, &mut y)?;
                let (ffn_norm, ffn) = feed_forward(x, &mut y)?;
                Ok((y, ffn_norm, ffn))
            }
            Residual::Sequential => {
                let mut after_attention = branch_from(x, weights, &[out])?;
                out.add_product(weights, attended, &mut after_attention)?;
                let mut y = branch_from(&after_attention, weights, &[down])?;
                let (ffn_norm, ffn) = feed_forward(&after_attention, &mut y)?;
                Ok((y, ffn_norm, ffn))
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
        (angles, range): (&Angles, &QueryRange),
        below: bool,
        into: &mut Params,
    ) -> Result<Option<Tensor>> {
        let Activations {
            attention_norm,
            attention,
            ffn_norm,
            ffn,
        } = activations;
        let dtype = into.flat().dtype();
        let wants = self.wants(below);
        let attention_out = |dout: &Tensor, into: &mut Params| -> Result<Option<Tensor>> {
            let attended = &attention.attended;
            self.attention
                .backward_out(weights, dout, attended, wants.attended, into)
        };
        let dout = branch_gradient(&dy, &attention.attended)?;
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
            let h = || self.ffn_norm.output(weights, &ffn_norm);
            let wanted = wants.ffn_normed.then_some(dtype);
            let dh = self
                .ffn
                .backward_inputs(weights, &dinputs, h, wanted, into)?;
            if let Some(dh) = dh {
                self.ffn_norm
                    .backward(weights, &dh, &ffn_norm, into, &mut dy)?;
            }
        }
        drop(ffn_norm);
        if self.residual == Residual::Sequential && wants.attention {
            let dout = branch_gradient(&dy, &attention.attended)?;
            dattended = attention_out(&dout, into)?;
        }
        let Some(dattended) = dattended else {
            return Ok(None);
        };
        let batch = (angles, &range.packing);
        let dqkv = self
            .attention
            .backward_attend(weights, dattended, attention, batch, into)?;
        let h = || self.attention_norm.output(weights, &attention_norm);
        let wanted = wants.attention_normed.then_some(dtype);
        let dh = self
            .attention
            .backward_inputs(weights, &dqkv, h, wanted, into)?;
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
        self.attention_norm
            .backward(weights, &dh, &attention_norm, into, &mut dx)?;
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
            qkv: inputs(self.attention.inputs(), wants.attention_normed),
            rest: self.attention.out.skipped(layout, wants.attended)
                + inputs(self.ffn.inputs(), wants.ffn_normed)
                + self.ffn.down().skipped(layout, wants.ffn_inputs),
            attention: !wants.attended,
        }
    }

    /// The gradients that something trained needs, in this block or `below` it.
    fn wants(&self, below: bool) -> Wants {
        let attention_normed = below || self.attention_norm.trainable();
        let attended = attention_normed || self.attention.trainable_before_out();
        let attention = attended || self.attention.out.trainable();
        let through_ffn = below || (attention && self.residual == Residual::Sequential);
        let ffn_normed = through_ffn || self.ffn_norm.trainable();
        Wants {
            attention_normed,
            attended,
            attention,
            ffn_normed,
            ffn_inputs: ffn_normed || self.ffn.inputs().iter().any(Linear::trainable),
        }
    }
}

/// The gradients that a block's backward pass computes.
struct Wants {
    /// Of attention's input.
    attention_normed: bool,
    /// Of what attention's output projection reads.
    attended: bool,
    /// Of attention's output.
    attention: bool,
    /// Of the feed-forward network's input.
    ffn_normed: bool,
    /// Of the activation's inputs.
    ffn_inputs: bool,
}

/// A copy of the residual stream that branches are then added to in place: it begins with the biases
/// of their last projections, `ends`.
fn branch_from(x: &Tensor, weights: Weights, ends: &[&Linear]) -> Result<Tensor> {
    let biases: Vec<&Tensor> = ends.iter().filter_map(|end| end.bias(weights)).collect();
    elementwise::residual(x, &biases)
}

/// The gradient of a branch's output, in the dtype of `like`: a branch is added to the stream, so it is
/// the stream's.
fn branch_gradient(dy: &Tensor, like: &Tensor) -> Result<Tensor> {
    elementwise::operand(dy, like)
}
