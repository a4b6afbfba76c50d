//! Who attends to whom: how the operands lie in memory, and blocks of the queries.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use super::Scores;
use super::packing::{Group, Packing};
use crate::error::{Error, Result};
use crate::segment::Segment;

/// Queries whose scores are held at once, per head.
pub(super) const BLOCK: usize = 64;

/// What does not depend on the element type.
pub(in crate::kernels) struct Plan<'a> {
    pub packing: &'a Packing,
    pub queries: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    /// Of q, k and v: from token to token, from head to head.
    pub strides: [(usize, usize); 3],
    pub scale: f64,
    pub window: usize,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        packing: &'a Packing,
        scores: Scores,
    ) -> Result<Self> {
        let (tokens, heads, dim) = q.dims3()?;
        let kv_heads = k.dim(1)?;
        let kv = (tokens, kv_heads, dim);
        if k.dims3()? != kv || v.dims3()? != kv || !heads.is_multiple_of(kv_heads) {
            let dims = (q.dims(), k.dims(), v.dims());
            return Err(Error::failed(format!(
                "attention: {:?}, {:?}, {:?}",
                dims.0, dims.1, dims.2
            )));
        }
        let strides = [q, k, v].map(Tensor::stride);
        if strides.iter().any(|stride| stride[2] != 1) {
            return Err(Error::failed("attention: heads with gaps"));
        }
        if packing.tokens != tokens {
            return Err(Error::failed(format!(
                "attention: segments of {} tokens, not {tokens}",
                packing.tokens
            )));
        }
        Ok(Self {
            packing,
            queries: packing.queries,
            heads,
            kv_heads,
            dim,
            strides: strides.map(|stride| (stride[0], stride[1])),
            scale: scores.scale,
            window: scores.window.unwrap_or(usize::MAX),
        })
    }

    /// Where q, k and v begin in the one tensor that they are views of, and their gradients in
    /// `dqkv`.
    ///
    /// # Errors
    /// If they are not views of one tensor laid out as `dqkv`, or share a place.
    pub(super) fn places(&self, views: [&Tensor; 3], dqkv: &Tensor) -> Result<[usize; 3]> {
        let start = views.map(|x| x.layout().start_offset());
        let first = start.into_iter().min().unwrap_or(0);
        let start = start.map(|start| start - first);
        let (tokens, width) = (views[0].dim(0)?, self.strides[0].0);
        let mut taken = vec![false; width];
        let mut apart = dqkv.is_contiguous() && dqkv.elem_count() == tokens * width;
        for ((view, start), (token, step)) in views.iter().zip(start).zip(self.strides) {
            apart &= token == width || tokens == 1;
            for head in 0..view.dim(1)? {
                let place = start + head * step;
                match taken.get_mut(place..place + self.dim) {
                    Some(places) if !places.contains(&true) => places.fill(true),
                    _ => apart = false,
                }
            }
        }
        match apart {
            true => Ok(start),
            false => Err(Error::failed(
                "attention: q, k and v must be views of one tensor, apart from each other",
            )),
        }
    }

    /// Every group and head of keys is a task of its own.
    pub(super) fn for_each_head(&self, task: impl Fn(&Group, usize) + Sync) {
        let tasks = self.packing.groups.len() * self.kv_heads;
        let run = |at: usize| task(&self.packing.groups[at / self.kv_heads], at % self.kv_heads);
        (0..tasks).into_par_iter().with_max_len(1).for_each(run);
    }

    /// Blocks of a group's queries: the segment, the block and its first row in the output.
    pub(super) fn blocks(
        &self,
        group: &Group,
    ) -> impl Iterator<Item = (&Segment, Range<usize>, usize)> {
        let mut output = group.output;
        self.packing.segments[group.segments.clone()]
            .iter()
            .flat_map(move |segment| {
                let queries = segment.queries.clone();
                let first = output;
                output += queries.len();
                let starts = queries.clone().step_by(BLOCK);
                starts.map(move |start| {
                    let block = start..(start + BLOCK).min(queries.end);
                    (segment, block, first + start - queries.start)
                })
            })
    }

    /// The keys that a block sees, in prefix and own, and how far its first query sees: the number of
    /// visible keys in that row, before any that the window hides.
    pub(super) fn keys(
        &self,
        segment: &Segment,
        block: &Range<usize>,
    ) -> ([Range<usize>; 2], usize) {
        let before = segment.prefix.len() + block.start - segment.own.start;
        let hidden = (before + 1).saturating_sub(self.window);
        let prefix = (segment.prefix.start + hidden).min(segment.prefix.end)..segment.prefix.end;
        let beyond = hidden.saturating_sub(segment.prefix.len());
        let own = segment.own.start + beyond..block.end;
        ([prefix, own], before + 1 - hidden)
    }
}
