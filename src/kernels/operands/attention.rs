//! Who attends to whom, and how the operands of attention lie in memory.

use std::ops::Range;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernels::precision::Precision;
use crate::segment::Segment;

/// How the score of a query and a key is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// The factor of every dot product.
    pub scale: f64,
    /// Sliding window: a token sees itself and the `window - 1` tokens before it, counted along
    /// prefix and own. All of them where `None`.
    pub window: Option<usize>,
    /// A soft cap c, if any: a score s, after the scale, becomes `c tanh(s / c)`, as in Gemma 2.
    pub softcap: Option<f64>,
    /// What the operands of attention's matmuls are rounded to: queries, keys, values and probabilities, and
    /// their gradients. On a GPU they are computed in the operands' own dtype.
    pub precision: Precision,
}

/// Segments whose own ranges cover a batch's tokens.
#[derive(Debug)]
pub struct Segments {
    pub all: Vec<Segment>,
    /// Runs of segments that see none of each other's tokens.
    pub groups: Vec<Group>,
    pub tokens: usize,
    pub queries: usize,
}

/// Segments with the tokens they cover, and where their queries begin in the output.
#[derive(Debug)]
pub struct Group {
    pub segments: Range<usize>,
    pub tokens: Range<usize>,
    pub output: usize,
}

impl Segments {
    /// # Errors
    /// If the own ranges do not follow each other from token 0, queries lie outside their own range,
    /// or a prefix outside its group.
    pub fn new(segments: Vec<Segment>) -> Result<Self> {
        let mut groups: Vec<Group> = Vec::new();
        let (mut covered, mut queries) = (0, 0);
        for (at, segment) in segments.iter().enumerate() {
            let Segment {
                prefix,
                own,
                queries: wanted,
            } = segment;
            if prefix.is_empty() || groups.is_empty() {
                groups.push(Group {
                    segments: at..at,
                    tokens: own.start..own.start,
                    output: queries,
                });
            }
            let Some(group) = groups.last_mut() else {
                continue;
            };
            let inside = prefix.is_empty()
                || (group.tokens.start <= prefix.start && prefix.end <= own.start);
            let wanted_inside =
                wanted.is_empty() || (own.start <= wanted.start && wanted.end <= own.end);
            if own.start != covered || !inside || !wanted_inside {
                return Err(Error::failed(format!(
                    "attention: {segment:?} after {covered} tokens"
                )));
            }
            (group.segments.end, group.tokens.end) = (at + 1, own.end);
            covered = own.end;
            queries += wanted.len();
        }
        Ok(Self {
            all: segments,
            groups,
            tokens: covered,
            queries,
        })
    }
}

/// What does not depend on the element type.
pub struct Plan<'a> {
    pub segments: &'a Segments,
    pub queries: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    /// Of q, k and v: from token to token, from head to head.
    pub strides: [(usize, usize); 3],
    pub scale: f64,
    pub window: usize,
    pub softcap: Option<f64>,
    pub precision: Precision,
}

impl<'a> Plan<'a> {
    pub fn new(
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        segments: &'a Segments,
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
        if segments.tokens != tokens {
            return Err(Error::failed(format!(
                "attention: segments of {} tokens, not {tokens}",
                segments.tokens
            )));
        }
        Ok(Self {
            segments,
            queries: segments.queries,
            heads,
            kv_heads,
            dim,
            strides: strides.map(|stride| (stride[0], stride[1])),
            scale: scores.scale,
            window: scores.window.unwrap_or(usize::MAX),
            softcap: scores.softcap,
            precision: scores.precision,
        })
    }

    /// Where q, k and v begin in the one tensor that they are views of, and their gradients in
    /// `dqkv`.
    ///
    /// # Errors
    /// If they are not views of one tensor laid out as `dqkv`, or share a place.
    pub fn places(&self, views: [&Tensor; 3], dqkv: &Tensor) -> Result<[usize; 3]> {
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
}
