//! The decoder: one forward and one backward pass for every family.
//!
//! Hides how a packed batch becomes log-probs and how their gradient becomes weight gradients.
//! The forward pass keeps what the backward pass needs, or only each block's input when
//! `recompute` is on; the backward pass goes block by block, frees as it goes and adds weight
//! gradients in place. The last block computes keys, values and queries of all tokens, and the rest
//! only where the head reads.
//!
//! *Why*: autograd would keep every intermediate to the end and allocate every gradient anew.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::bf16;

use super::arch::Architecture;
use super::block::{self, Block, QueryRange};
use super::numerics::Numerics;
use super::parameters::{Layout, Parameter, Params, Weights};
use super::positions::{Placed, Positions};
use crate::data::pack::Packed;
use crate::error::Result;
use crate::kernels::Precision;
use crate::kernels::attention::Packing;
use crate::kernels::dropout::{Dropout, RowKeys};
use crate::kernels::elementwise;
use crate::kernels::embedding::{self, Ids};
use crate::segment::Segment;

/// Logits in one tile, on the CPU and on a GPU, which wants large matmuls and is asked for
/// its log-probs once per tile.
const TILE_LOGITS: [usize; 2] = [1 << 25, 1 << 28];

/// Rows of a tile at least: of a vocabulary of 262 thousand ids 256 MiB of logits in f32, where fewer rows
/// would have most answers take several tiles, and all but one of these are computed twice.
const LEAST_TILE_ROWS: usize = 256;

/// A causal language model with its weights on a device.
#[derive(Debug)]
pub struct Decoder {
    pub(super) arch: Architecture,
    pub(super) params: Params,
    numerics: Numerics,
    pub(super) blocks: Vec<Block>,
    embedding: Parameter,
    /// The lowest block that the backward pass reaches: below it nothing is trained. The number of
    /// blocks where it reaches none.
    lowest: usize,
    positions: Positions,
    /// Whether the forward pass keeps only block inputs and the backward pass computes the rest
    /// again: less memory, a third more time.
    pub recompute: bool,
    /// Whether layers add their low-rank products, where the model has an adapter.
    pub adapter: bool,
    /// Seed of what [`Decoder::step`] drops of these products' inputs, where the adapter has dropout:
    /// another one for each update.
    pub dropout_seed: u64,
    /// Rows of logits that are held at once, unless set 64 MiB of them in f32, on a GPU 1 GiB, and no fewer than 256; an
    /// example of more is computed in several tiles, all but one of them twice.
    pub tile_rows: usize,
}

/// What the forward pass leaves for the head and the backward pass.
pub(super) struct Activations {
    inputs: Inputs,
    /// (predictions): the row of the forward pass's output that predicts.
    pub sources: Ids,
    /// Of the blocks from [`Decoder::lowest`] on.
    blocks: Vec<OfBlock>,
}

impl Activations {
    /// The keys of the predictions in `rows`, where some of the head's input is dropped.
    pub(super) fn head_keys(&self, rows: &Range<usize>) -> Result<Option<RowKeys>> {
        let dropout = self.inputs.dropout.as_ref();
        let keys = dropout.map(|dropout| dropout.predictions.narrow(rows.start, rows.len()));
        keys.transpose()
    }

    /// What is dropped of rows with these keys.
    pub(super) fn dropout<'a>(&self, keys: &'a Option<RowKeys>) -> Option<Dropout<'a>> {
        Some(self.inputs.dropout.as_ref()?.of(keys.as_ref()?))
    }
}

enum OfBlock {
    Everything(Box<block::Activations>),
    /// The block's input, (tokens, hidden).
    Input(Tensor),
}

/// A packed batch on the device.
struct Inputs {
    /// (tokens).
    ids: Ids,
    placed: Placed,
    /// Of every block but the last, then of the last, which computes only what the head reads.
    ranges: [QueryRange; 2],
    /// What low-rank products drop; nothing but in training.
    dropout: Option<TokenDropout>,
}

/// The share that low-rank products drop of their inputs, and which it is.
pub(super) struct TokenDropout {
    rate: f64,
    seed: u64,
    /// Of all tokens.
    tokens: RowKeys,
    /// Of those whose hidden state predicts.
    predictions: RowKeys,
}

impl TokenDropout {
    fn of<'a>(&self, keys: &'a RowKeys) -> Dropout<'a> {
        Dropout {
            rate: self.rate,
            seed: self.seed,
            keys,
        }
    }
}

impl Decoder {
    /// A decoder of these weights, laid out as [`Layout::new`] says.
    pub fn new(arch: Architecture, params: Params) -> Self {
        let layout = params.layout();
        let blocks: Vec<_> = (0..arch.layers)
            .map(|layer| Block::new(&arch, layout, layer))
            .collect();
        let embedding = layout.parameter(&format!("{}.weight", arch.names.embed));
        let positions = Positions::new(&arch, layout);
        let learned = positions.learned();
        let lowest = lowest(&blocks, [Some(embedding), learned]);
        let tile_rows = tile_rows(&arch, params.flat().device().is_cuda());
        Self {
            arch,
            numerics: Numerics::exact(params.flat().dtype()),
            params,
            blocks,
            embedding,
            lowest,
            positions,
            recompute: false,
            adapter: true,
            dropout_seed: 0,
            tile_rows,
        }
    }

    /// The same model, whose matmuls round their operands to this precision.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.numerics.compute = precision;
        self
    }

    /// The same model, computed in `numerics`, whose storage is that of the weights.
    pub(super) fn with_numerics(self, numerics: Numerics) -> Self {
        Self { numerics, ..self }
    }

    /// In what it is computed and stored.
    pub fn numerics(&self) -> Numerics {
        self.numerics
    }

    /// The model's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.arch
    }

    /// The weights.
    pub fn weights(&self) -> &Params {
        &self.params
    }

    /// The weights, to be written in place by an optimizer or a checkpoint.
    pub fn weights_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// The weights as training and scoring compute with them.
    pub(super) fn own_weights(&self) -> Weights<'_> {
        Weights {
            params: &self.params,
            precision: self.numerics.compute,
            adapter: self.adapter,
            dropout: None,
        }
    }

    /// Whether layers add low-rank products.
    pub fn has_adapter(&self) -> bool {
        self.adapter && self.layout().adapter.is_some()
    }

    /// The same model without its adapter, in the same memory. What an adapter trains whole is as it is
    /// now.
    pub fn base(&self) -> Self {
        Self {
            adapter: false,
            ..self.with_params(self.params.clone())
        }
    }

    /// The same model with a copy of what is trained, in the same memory otherwise.
    ///
    /// # Errors
    /// If there is no memory for the copy.
    pub fn with_own_trained(&self) -> Result<Self> {
        Ok(self.with_params(self.params.with_own_trained()?))
    }

    /// The same model with other values of its parameters.
    fn with_params(&self, params: Params) -> Self {
        Self {
            numerics: self.numerics,
            recompute: self.recompute,
            adapter: self.adapter,
            dropout_seed: self.dropout_seed,
            tile_rows: self.tile_rows,
            ..Self::new(self.arch.clone(), params)
        }
    }

    /// A buffer of zeros to accumulate the gradients of what is trained in, f32 beside bf16 weights.
    pub fn gradients(&self) -> Result<Params> {
        let layout = Arc::new(self.layout().trainable());
        Params::zeros(layout, self.stream_dtype(), self.device())
    }

    /// Whether anything before the head is trained.
    pub(super) fn trained_below_head(&self) -> bool {
        self.lowest < self.blocks.len() || self.trained_below_blocks()
    }

    /// Whether the embedding or a learned table of positions is trained.
    fn trained_below_blocks(&self) -> bool {
        let learned = self.positions.learned();
        self.embedding.trainable() || learned.is_some_and(Parameter::trainable)
    }

    pub(super) fn layout(&self) -> &Arc<Layout> {
        self.params.layout()
    }

    /// The dtype of the residual stream, of rotations, logits and gradients.
    pub(super) fn stream_dtype(&self) -> DType {
        self.numerics.stream()
    }

    /// The dtype of weights and activations.
    pub fn dtype(&self) -> DType {
        self.params.flat().dtype()
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.params.flat().device()
    }

    /// What a batch is computed from; `drops` is whether low-rank products drop some of it.
    fn inputs(&self, packed: &Packed, drops: bool) -> Result<(Inputs, Ids)> {
        self.check_lengths(packed)?;
        let (segments, rows, sources) = read_by_head(packed);
        let packing = |segments: Vec<Segment>| Packing::new(segments, self.device());
        let rate = self.layout().adapter.as_ref().map_or(0.0, |it| it.dropout);
        let drops = drops && self.adapter && rate > 0.0;
        let keys = |tokens: &[u32]| {
            let keys = tokens.iter().map(|&token| packed.keys[token as usize]);
            RowKeys::new(&keys.collect::<Vec<u32>>(), self.device())
        };
        let all = QueryRange {
            packing: packing(packed.segments.clone())?,
            rows: None,
            keys: None,
        };
        let last = QueryRange {
            packing: packing(segments)?,
            rows: Some(Ids::new(&rows, self.device())?),
            keys: drops.then(|| keys(&rows)).transpose()?,
        };
        let dropout = drops.then(|| -> Result<_> {
            Ok(TokenDropout {
                rate,
                seed: self.dropout_seed,
                tokens: RowKeys::new(&packed.keys, self.device())?,
                predictions: keys(&packed.sources)?,
            })
        });
        let inputs = Inputs {
            dropout: dropout.transpose()?,
            ids: Ids::new(&packed.ids, self.device())?,
            placed: self.placed(&packed.positions, &packed.lengths)?,
            ranges: [all, last],
        };
        Ok((inputs, Ids::new(&sources, self.device())?))
    }

    fn range<'a>(&self, inputs: &'a Inputs, layer: usize) -> &'a QueryRange {
        &inputs.ranges[usize::from(layer + 1 == self.blocks.len())]
    }

    /// What tokens at these positions of sequences of these lengths are computed with.
    pub(super) fn placed(&self, positions: &[u32], lengths: &[u32]) -> Result<Placed> {
        let dtype = self.stream_dtype();
        self.positions.of(positions, lengths, dtype, self.device())
    }

    /// The residual stream of token ids before the first block, (tokens, hidden).
    pub(super) fn embed(&self, ids: &Ids, placed: &Placed) -> Result<Tensor> {
        let (weights, dtype) = (self.own_weights(), self.stream_dtype());
        let mut x = embedding::gather(self.embedding.of(weights), ids, dtype)?;
        let multiplier = self.embedding_multiplier();
        if multiplier != 1.0 {
            elementwise::scale(&mut x, multiplier)?;
        }
        if let (Some(table), Placed::Learned(rows)) = (self.positions.learned(), placed) {
            let of_positions = embedding::gather(table.of(weights), rows, dtype)?;
            elementwise::add_assign(&mut x, &of_positions)?;
        }
        Ok(x)
    }

    /// Adds the gradients of the embedding, and of a learned table of positions, given that of what
    /// [`Self::embed`] gave.
    fn embed_backward(&self, mut dx: Tensor, inputs: &Inputs, into: &mut Params) -> Result<()> {
        if let (Some(table), Placed::Learned(rows)) = (self.positions.learned(), &inputs.placed)
            && let Some(dtable) = table.gradient(into)
        {
            embedding::scatter_add(&dx, rows, dtable)?;
        }
        let Some(dtable) = self.embedding.gradient(into) else {
            return Ok(());
        };
        let multiplier = self.embedding_multiplier();
        if multiplier != 1.0 {
            elementwise::scale(&mut dx, multiplier)?;
        }
        embedding::scatter_add(&dx, &inputs.ids, dtable)
    }

    /// The factor of the embedding, as transformers has it.
    fn embedding_multiplier(&self) -> f64 {
        let multiplier = self.arch.multipliers.embedding;
        match self.dtype() {
            DType::BF16 if self.arch.multipliers.embedding_rounded => {
                bf16::from_f64(multiplier).to_f64()
            }
            _ => multiplier,
        }
    }

    /// The residual stream after the last block at [`Packed::sources`], (predictions, hidden); `visit`
    /// sees what each block kept.
    pub(super) fn forward_with(
        &self,
        weights: Weights,
        packed: &Packed,
        mut visit: impl FnMut(usize, block::Activations) -> Result<()>,
    ) -> Result<Tensor> {
        let (inputs, sources) = self.inputs(packed, false)?;
        let mut x = self.embed(&inputs.ids, &inputs.placed)?;
        for layer in 0..self.blocks.len() {
            let (y, activations) = self.block_forward(weights, layer, &x, &inputs)?;
            visit(layer, activations)?;
            x = y;
        }
        embedding::gather(&x, &sources, x.dtype())
    }

    /// The residual stream after the last block, (rows, hidden), where anything is predicted, and
    /// what a backward pass needs.
    pub(super) fn forward(&self, packed: &Packed) -> Result<(Tensor, Activations)> {
        let (inputs, sources) = self.inputs(packed, true)?;
        let mut x = self.embed(&inputs.ids, &inputs.placed)?;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for layer in 0..self.blocks.len() {
            let weights = self.weights_of(&inputs);
            let (y, activations) = self.block_forward(weights, layer, &x, &inputs)?;
            if layer >= self.lowest {
                // What the last block keeps is needed first and is little.
                blocks.push(match self.recompute && layer + 1 < self.blocks.len() {
                    false => OfBlock::Everything(Box::new(activations)),
                    true => OfBlock::Input(x),
                });
            }
            x = y;
        }
        let activations = Activations {
            inputs,
            sources,
            blocks,
        };
        Ok((x, activations))
    }

    /// Adds the weight gradients of blocks and embedding, given the gradient of what
    /// [`Self::forward`] gave, (rows, hidden). It ends at the lowest parameter that is trained.
    pub(super) fn backward(
        &self,
        mut dx: Tensor,
        activations: Activations,
        gradients: &mut Params,
    ) -> Result<()> {
        let Activations { inputs, blocks, .. } = activations;
        let weights = self.weights_of(&inputs);
        for (above, kept) in blocks.into_iter().enumerate().rev() {
            let layer = self.lowest + above;
            let activations = match kept {
                OfBlock::Everything(activations) => *activations,
                OfBlock::Input(x) => self.block_forward(weights, layer, &x, &inputs)?.1,
            };
            let batch = (inputs.placed.angles(layer), self.range(&inputs, layer));
            let below = self.trained_below_blocks() || layer > self.lowest;
            let block = &self.blocks[layer];
            match block.backward(weights, dx, activations, batch, below, gradients)? {
                Some(input) => dx = input,
                None => return Ok(()),
            }
        }
        self.embed_backward(dx, &inputs, gradients)
    }

    /// The weights as a step computes blocks with them.
    fn weights_of<'a>(&'a self, inputs: &'a Inputs) -> Weights<'a> {
        let dropout = inputs.dropout.as_ref();
        Weights {
            dropout: dropout.map(|dropout| dropout.of(&dropout.tokens)),
            ..self.own_weights()
        }
    }

    /// The bytes of all that a forward pass leaves for the backward pass, each tensor's memory once.
    #[cfg(test)]
    pub(crate) fn kept_bytes(&self, packed: &Packed) -> Result<usize> {
        let (x, activations) = self.forward(packed)?;
        drop(x);
        let Inputs {
            ids,
            placed,
            ranges,
            ..
        } = &activations.inputs;
        let mut tensors = vec![ids.tensor(), activations.sources.tensor()];
        tensors.extend(placed.tensors());
        tensors.extend(
            ranges
                .iter()
                .filter_map(|range| Some(range.rows.as_ref()?.tensor())),
        );
        for kept in &activations.blocks {
            match kept {
                OfBlock::Everything(activations) => tensors.extend(activations.tensors()),
                OfBlock::Input(x) => tensors.push(x),
            }
        }
        let mut memory = std::collections::BTreeMap::new();
        for tensor in tensors {
            let storage = tensor.storage_and_layout().0;
            let bytes = match &*storage {
                candle_core::Storage::Cpu(candle_core::CpuStorage::F32(x)) => 4 * x.len(),
                candle_core::Storage::Cpu(candle_core::CpuStorage::U32(x)) => 4 * x.len(),
                _ => unreachable!("a test on the CPU"),
            };
            memory.insert(std::ptr::from_ref(&*storage).addr(), bytes);
        }
        Ok(memory.values().sum())
    }

    fn block_forward(
        &self,
        weights: Weights,
        layer: usize,
        x: &Tensor,
        inputs: &Inputs,
    ) -> Result<(Tensor, block::Activations)> {
        let range = self.range(inputs, layer);
        let angles = inputs.placed.angles(layer);
        self.blocks[layer].forward(weights, x, angles, range)
    }
}

/// The lowest block that the backward pass reaches; the number of blocks where it reaches none. `below`
/// are the tables of ids and positions.
pub(super) fn lowest(blocks: &[Block], below: [Option<Parameter>; 2]) -> usize {
    let trained = blocks.iter().position(Block::trainable);
    match below.into_iter().flatten().any(Parameter::trainable) {
        true => 0,
        false => trained.unwrap_or(blocks.len()),
    }
}

/// Rows of logits that are held at once unless the decoder is told otherwise.
pub(crate) fn tile_rows(arch: &Architecture, gpu: bool) -> usize {
    (TILE_LOGITS[usize::from(gpu)] / arch.vocab_size).max(LEAST_TILE_ROWS)
}

/// What the last block must compute: the segments with the queries that the head reads, and those
/// between them; these tokens; and where among them each prediction's source is.
pub(crate) fn read_by_head(packed: &Packed) -> (Vec<Segment>, Vec<u32>, Vec<u32>) {
    let mut read = vec![false; packed.ids.len()];
    for &source in &packed.sources {
        read[source as usize] = true;
    }
    let (mut rows, mut place) = (Vec::new(), vec![0; packed.ids.len()]);
    let mut segments = packed.segments.clone();
    for segment in &mut segments {
        let (start, own) = (segment.own.start, &read[segment.own.clone()]);
        let first = own.iter().position(|&read| read);
        let last = own.iter().rposition(|&read| read);
        segment.queries = match (first, last) {
            (Some(first), Some(last)) => start + first..start + last + 1,
            _ => start..start,
        };
        for token in segment.queries.clone() {
            place[token] = rows.len() as u32;
            rows.push(token as u32);
        }
    }
    let sources = packed.sources.iter().map(|&s| place[s as usize]);
    let sources = sources.collect();
    (segments, rows, sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Example, Response};
    use crate::loss::Role;

    #[test]
    fn the_last_block_computes_what_the_head_reads() {
        let responses = [(Role::Chosen, vec![3, 4, 0]), (Role::Rejected, vec![5])];
        let example = Example {
            row: 0,
            prompt: vec![1, 2],
            responses: responses.map(|(role, ids)| Response::new(role, ids)).into(),
            preference: None,
        };
        let packed = Packed::new([&example, &example], Role::ALL);
        assert_eq!(packed.sources, [1, 2, 3, 1, 7, 8, 9, 7]);
        let (segments, rows, sources) = read_by_head(&packed);
        let queries: Vec<_> = segments.iter().map(|s| s.queries.clone()).collect();
        assert_eq!(queries, [1..2, 2..4, 5..5, 7..8, 8..10, 11..11]);
        assert_eq!(rows, [1, 2, 3, 7, 8, 9]);
        assert_eq!(sources, [0, 1, 2, 0, 3, 4, 5, 3]);
    }
}
