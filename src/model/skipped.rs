//! What the backward pass skips where parameters are frozen; for planning, without weights.

use super::arch::Architecture;
use super::block::Block;
use super::decoder::lowest;
use super::linear::Linear;
use super::parameters::{Layout, Parameter};
use super::positions::Positions;

/// The parts of a backward pass that are not computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// By layer.
    pub blocks: Vec<SkippedInBlock>,
    /// Elements of the head's weight, once for each of its two matmuls that is left out.
    pub head: usize,
    /// The lowest block that the backward pass reaches; the number of blocks where it reaches none.
    pub lowest: usize,
}

/// Of one block: elements of weights, once for each matmul that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedInBlock {
    /// Of the projections of queries, keys and values.
    pub qkv: usize,
    /// Of all other matrices.
    pub rest: usize,
    /// Whether attention itself is left out.
    pub attention: bool,
}

impl Skipped {
    /// Of a model whose parameters are trained as `layout` says.
    pub fn of(arch: &Architecture, layout: &Layout) -> Self {
        let blocks = (0..arch.layers).map(|layer| Block::new(arch, layout, layer));
        let blocks: Vec<Block> = blocks.collect();
        let embedding = layout.parameter(&format!("{}.weight", arch.names.embed));
        let head = Linear::head(arch, layout);
        let final_norm = layout.entries.iter().any(|entry| {
            let part = entry.name.strip_prefix(&arch.names.final_norm);
            entry.trainable && part.is_some_and(|part| part.starts_with('.'))
        });
        let tables = [Some(embedding), Positions::new(arch, layout).learned()];
        let lowest = lowest(&blocks, tables);
        let below_blocks = tables.into_iter().flatten().any(Parameter::trainable);
        let below_head = final_norm || below_blocks || lowest < blocks.len();
        let of_block =
            |(layer, block): (usize, &Block)| block.skipped(layout, below_blocks || layer > lowest);
        Self {
            blocks: blocks.iter().enumerate().map(of_block).collect(),
            head: head.skipped(layout, below_head),
            lowest,
        }
    }
}
