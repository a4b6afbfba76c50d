//! Causal attention over packed segments: a response attends to its prompt and to itself, or to as
//! much of that as a sliding window shows (Beltagy et al. 2020).
//!
//! *Why*: a prompt is computed once for all its responses, which must not see each other. Work is
//! done segment by segment, so no (tokens, tokens) matrix ever exists and no caller may assume one.
//! The keys of a segment are successive positions, so a window is a band of the mask.

use std::ops::Range;

use candle_core::{D, DType, Device, Tensor};

use super::elementwise::add_assign;
use crate::error::Result;

/// A run of tokens and what it attends to besides its own past: a prompt has no prefix, a response
/// has its prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Tokens that every token of the segment sees.
    pub prefix: Range<usize>,
    /// The segment's own tokens, each of which sees those before it and itself.
    pub own: Range<usize>,
}

impl Segment {
    /// The segment without the tokens of its prefix that none of its own sees through a window.
    fn within(&self, window: usize) -> Self {
        let Range { start, end } = self.prefix;
        let first = (end + 1).saturating_sub(window);
        Self {
            prefix: start.max(first)..end,
            own: self.own.clone(),
        }
    }
}

/// `softmax(q k^T / sqrt(head_dim)) v` of `q` (tokens, heads, head_dim), `k` and `v` (tokens,
/// kv_heads, head_dim), where each key-value head serves heads / kv_heads successive heads.
/// The segments' own ranges cover the tokens in order. Where there is a `window`, a token sees only
/// the last so many of its keys, itself included. Returns (tokens, heads, head_dim).
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &[Segment],
    window: Option<usize>,
) -> Result<Tensor> {
    let mut outputs = Vec::with_capacity(segments.len());
    for segment in segments {
        let tile = Tile::new(q, k, v, segment, window)?;
        outputs.push(tile.ungroup(&tile.probabilities()?.matmul(&tile.v)?)?);
    }
    Ok(Tensor::cat(&outputs, 0)?)
}

/// The gradients (dq, dk, dv), shaped as q, k and v. Probabilities are computed again.
pub fn backward(
    dy: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &[Segment],
    window: Option<usize>,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (dk, dv) = (k.zeros_like()?, v.zeros_like()?);
    let mut dq = Vec::with_capacity(segments.len());
    for segment in segments {
        let tile = Tile::new(q, k, v, segment, window)?;
        let p = tile.probabilities()?;
        let dy = tile.group(dy)?;
        let dp = dy.matmul(&tile.v.t()?)?;
        let along = (&p * &dp)?.sum_keepdim(D::Minus1)?;
        let ds = ((&p * dp.broadcast_sub(&along)?)? * tile.scale)?;
        dq.push(tile.ungroup(&ds.matmul(&tile.k)?)?);
        tile.scatter(&ds.transpose(1, 2)?.matmul(&tile.q)?, &dk)?;
        tile.scatter(&p.transpose(1, 2)?.matmul(&dy)?, &dv)?;
    }
    Ok((Tensor::cat(&dq, 0)?, dk, dv))
}

/// The operands of one segment, key-value head first: n own tokens, m = prefix + n keys.
struct Tile {
    /// Without the part of the prefix that is behind every window.
    segment: Segment,
    window: usize,
    /// (kv_heads, group * n, head_dim), the group being the heads that share a key-value head.
    q: Tensor,
    /// (kv_heads, m, head_dim).
    k: Tensor,
    /// (kv_heads, m, head_dim).
    v: Tensor,
    scale: f64,
}

impl Tile {
    fn new(
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        segment: &Segment,
        window: Option<usize>,
    ) -> Result<Self> {
        let window = window.unwrap_or(usize::MAX);
        let segment = segment.within(window);
        let keys = |x: &Tensor| -> Result<Tensor> {
            let (prefix, own) = (rows(x, &segment.prefix)?, rows(x, &segment.own)?);
            Ok(Tensor::cat(&[prefix, own], 0)?
                .transpose(0, 1)?
                .contiguous()?)
        };
        let (k, v) = (keys(k)?, keys(v)?);
        let scale = 1.0 / (q.dim(D::Minus1)? as f64).sqrt();
        let mut tile = Self {
            segment,
            window,
            q: q.clone(),
            k,
            v,
            scale,
        };
        tile.q = tile.group(q)?;
        Ok(tile)
    }

    /// (tokens, heads, head_dim) -> (kv_heads, group * n, head_dim) of the own tokens.
    fn group(&self, x: &Tensor) -> Result<Tensor> {
        let kv_heads = self.k.dim(0)?;
        let own = rows(x, &self.segment.own)?.transpose(0, 1)?.contiguous()?;
        let (heads, n, dim) = own.dims3()?;
        Ok(own.reshape((kv_heads, heads / kv_heads * n, dim))?)
    }

    /// (kv_heads, group * n, head_dim) -> (n, heads, head_dim).
    fn ungroup(&self, x: &Tensor) -> Result<Tensor> {
        let n = self.segment.own.len();
        let (kv_heads, group_n, dim) = x.dims3()?;
        let x = x.reshape((kv_heads * (group_n / n), n, dim))?;
        Ok(x.transpose(0, 1)?.contiguous()?)
    }

    /// (kv_heads, group * n, m).
    fn probabilities(&self) -> Result<Tensor> {
        let scores = (self.q.matmul(&self.k.t()?)? * self.scale)?;
        let (n, m) = (self.segment.own.len(), self.k.dim(1)?);
        let (kv_heads, group_n, _) = scores.dims3()?;
        let mask = band_mask(n, m, self.window, scores.dtype(), scores.device())?;
        let scores = scores
            .reshape((kv_heads * (group_n / n), n, m))?
            .broadcast_add(&mask)?;
        let weights = scores
            .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
            .exp()?;
        let p = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        Ok(p.reshape((kv_heads, group_n, m))?)
    }

    /// Adds `dx` (kv_heads, m, head_dim) to the rows of prefix and own tokens.
    fn scatter(&self, dx: &Tensor, into: &Tensor) -> Result<()> {
        let dx = dx.transpose(0, 1)?.contiguous()?;
        let (prefix, own) = (&self.segment.prefix, &self.segment.own);
        if !prefix.is_empty() {
            add_assign(&rows(into, prefix)?, &dx.narrow(0, 0, prefix.len())?)?;
        }
        add_assign(&rows(into, own)?, &dx.narrow(0, prefix.len(), own.len())?)
    }
}

fn rows(x: &Tensor, range: &Range<usize>) -> Result<Tensor> {
    Ok(x.narrow(0, range.start, range.len())?)
}

/// (n, m): 0 where own token i sees key j, -inf where j is after it or behind its window.
fn band_mask(n: usize, m: usize, window: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let visible = |i: usize, j: usize| {
        let own = i + (m - n);
        if j <= own && own - j < window {
            0.0
        } else {
            f32::NEG_INFINITY
        }
    };
    let mask: Vec<f32> = (0..n * m).map(|at| visible(at / m, at % m)).collect();
    Ok(Tensor::from_vec(mask, (n, m), device)?.to_dtype(dtype)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::*;

    /// Attention over all tokens at once with a (tokens, tokens) mask, in differentiable operations.
    fn reference(
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        segments: &[Segment],
        window: Option<usize>,
    ) -> Tensor {
        let (tokens, heads, dim) = q.dims3().unwrap();
        let group = heads / k.dim(1).unwrap();
        let mut mask = vec![f64::NEG_INFINITY; tokens * tokens];
        for segment in segments {
            for i in segment.own.clone() {
                let keys = segment.prefix.clone().chain(segment.own.start..i + 1);
                for j in keys.rev().take(window.unwrap_or(tokens)) {
                    mask[i * tokens + j] = 0.0;
                }
            }
        }
        let mask = Tensor::from_vec(mask, (tokens, tokens), &Device::Cpu).unwrap();
        let share: Vec<u32> = (0..heads as u32).map(|h| h / group as u32).collect();
        let share = Tensor::new(share, &Device::Cpu).unwrap();
        let repeat = |x: &Tensor| x.index_select(&share, 1).unwrap();
        let by_head = |x: &Tensor| x.transpose(0, 1).unwrap().contiguous().unwrap();
        let (q, k, v) = (by_head(q), by_head(&repeat(k)), by_head(&repeat(v)));
        let scores = (q.matmul(&k.t().unwrap()).unwrap() / (dim as f64).sqrt()).unwrap();
        let p = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), 2).unwrap();
        p.matmul(&v).unwrap().transpose(0, 1).unwrap()
    }

    #[test]
    fn packed_segments_equal_masked_attention() {
        // prompt 3, responses 2 and 1; a response without a prompt; a prompt of 1 and its response.
        let segments: Vec<Segment> = [
            (0..0, 0..3),
            (0..3, 3..5),
            (0..3, 5..6),
            (6..6, 6..8),
            (8..8, 8..9),
            (8..9, 9..12),
        ]
        .map(|(prefix, own)| Segment { prefix, own })
        .into();
        for (heads, kv_heads, window) in [
            (4, 4, None),
            (4, 2, None),
            (6, 1, None),
            (4, 4, Some(1)),
            (4, 2, Some(2)),
            (6, 1, Some(3)),
            (4, 2, Some(4)),
            (4, 2, Some(12)),
        ] {
            let q = variable(1, &[12, heads, 5]);
            let (k, v) = (
                variable(2, &[12, kv_heads, 5]),
                variable(3, &[12, kv_heads, 5]),
            );
            let seed = variable(4, &[12, heads, 5]);
            let want = reference(&q, &k, &v, &segments, window);
            let got = attention(&q, &k, &v, &segments, window).unwrap();
            assert_close(&got, &want, "forward");
            let gradients = autograd(&want, &seed, &[&q, &k, &v]);
            let (dq, dk, dv) = backward(&seed, &q, &k, &v, &segments, window).unwrap();
            assert_close(&dq, &gradients[0], "dq");
            assert_close(&dk, &gradients[1], "dk");
            assert_close(&dv, &gradients[2], "dv");
        }
    }
}
