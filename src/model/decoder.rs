//! The decoder: one forward and one backward pass for every family.
//!
//! Hides how a packed batch becomes log-probs and how their gradient becomes weight gradients.
//! The forward pass keeps what the backward pass needs, or only each block's input when
//! `recompute` is on; the backward pass goes block by block, frees as it goes and adds weight
//! gradients in place.
//!
//! *Why*: autograd would keep every intermediate to the end and allocate every gradient anew.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::arch::Architecture;
use super::block::{Block, Saved};
use super::parameters::{Buffer, Layout};
use crate::data::pack::Packed;
use crate::error::Result;
use crate::kernels::{embedding, rotary::Angles};

/// A causal language model with its weights on a device.
#[derive(Debug)]
pub struct Decoder {
    pub(super) arch: Architecture,
    pub(super) weights: Buffer,
    pub(super) blocks: Vec<Block>,
    inverse_frequencies: Vec<f32>,
    /// Whether the forward pass keeps only block inputs and the backward pass computes the rest
    /// again: less memory, a third more time.
    pub recompute: bool,
}

/// What the forward pass leaves for the backward pass.
pub(super) struct Trace {
    batch: Inputs,
    blocks: Vec<Kept>,
}

enum Kept {
    Everything(Saved),
    /// The block's input, (tokens, hidden).
    Input(Tensor),
}

/// A packed batch on the device.
pub(super) struct Inputs {
    /// (tokens), u32.
    ids: Tensor,
    pub angles: Angles,
    pub segments: Vec<crate::kernels::attention::Segment>,
}

impl Decoder {
    /// A decoder of these weights, laid out as [`Layout::new`] says.
    pub fn new(arch: Architecture, weights: Buffer) -> Self {
        let layout = weights.layout();
        let blocks = (0..arch.layers)
            .map(|layer| Block::new(&arch, layout, layer))
            .collect();
        let inverse_frequencies = arch.rotary.inverse_frequencies();
        Self {
            arch,
            weights,
            blocks,
            inverse_frequencies,
            recompute: false,
        }
    }

    /// The model's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.arch
    }

    /// The weights; the optimizer writes to them in place.
    pub fn weights(&self) -> &Buffer {
        &self.weights
    }

    /// A buffer of zeros to accumulate gradients in.
    pub fn gradients(&self) -> Result<Buffer> {
        Buffer::zeros(self.layout().clone(), self.dtype(), self.device())
    }

    pub(super) fn layout(&self) -> &Arc<Layout> {
        self.weights.layout()
    }

    /// The dtype of weights and activations.
    pub fn dtype(&self) -> DType {
        self.weights.flat().dtype()
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.weights.flat().device()
    }

    fn inputs(&self, packed: &Packed) -> Result<Inputs> {
        Ok(Inputs {
            ids: Tensor::new(packed.ids.as_slice(), self.device())?,
            angles: self.angles(&packed.positions)?,
            segments: packed.segments.clone(),
        })
    }

    /// The rotary angles of tokens at these positions.
    pub(super) fn angles(&self, positions: &[u32]) -> Result<Angles> {
        let angle = |&position: &u32| {
            self.inverse_frequencies
                .iter()
                .map(move |f| position as f32 * f)
        };
        let angles: Vec<f32> = positions.iter().flat_map(angle).collect();
        let shape = (positions.len(), 1, self.inverse_frequencies.len());
        let turn = |f: fn(f32) -> f32| -> Result<Tensor> {
            let values: Vec<f32> = angles.iter().map(|&a| f(a)).collect();
            Ok(Tensor::from_vec(values, shape, self.device())?.to_dtype(self.dtype())?)
        };
        Ok(Angles {
            cos: turn(f32::cos)?,
            sin: turn(f32::sin)?,
        })
    }

    /// The residual stream of token ids before the first block, (tokens, hidden).
    pub(super) fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        embedding::gather(self.weights.view(self.embedding()), ids)
    }

    /// The residual stream after the last block, (tokens, hidden); `visit` sees what each block
    /// kept.
    pub(super) fn forward_with(
        &self,
        packed: &Packed,
        mut visit: impl FnMut(usize, Saved) -> Result<()>,
    ) -> Result<Tensor> {
        let batch = self.inputs(packed)?;
        let mut x = self.embed(&batch.ids)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let (y, saved) = block.forward(&self.arch, &self.weights, &x, &batch)?;
            visit(layer, saved)?;
            x = y;
        }
        Ok(x)
    }

    /// The residual stream after the last block, (tokens, hidden), and what a backward pass needs.
    pub(super) fn forward(&self, packed: &Packed, keep: bool) -> Result<(Tensor, Trace)> {
        let batch = self.inputs(packed)?;
        let mut x = self.embed(&batch.ids)?;
        let mut blocks = Vec::new();
        for block in &self.blocks {
            let (y, saved) = block.forward(&self.arch, &self.weights, &x, &batch)?;
            match (keep, self.recompute) {
                (true, false) => blocks.push(Kept::Everything(saved)),
                (true, true) => blocks.push(Kept::Input(x)),
                (false, _) => {}
            }
            x = y;
        }
        Ok((x, Trace { batch, blocks }))
    }

    /// Adds the weight gradients of blocks and embedding, given the gradient of the residual stream
    /// after the last block, (tokens, hidden).
    pub(super) fn backward(&self, mut dx: Tensor, trace: Trace, gradients: &Buffer) -> Result<()> {
        let Trace { batch, blocks } = trace;
        for (block, kept) in self.blocks.iter().zip(blocks).rev() {
            let saved = match kept {
                Kept::Everything(saved) => saved,
                Kept::Input(x) => block.forward(&self.arch, &self.weights, &x, &batch)?.1,
            };
            dx = block.backward(&self.arch, &self.weights, &dx, saved, &batch, gradients)?;
        }
        embedding::scatter_add(&dx, &batch.ids, gradients.view(self.embedding()))
    }

    fn embedding(&self) -> usize {
        self.layout()
            .id(&format!("{}.weight", self.arch.names.embed))
    }
}
