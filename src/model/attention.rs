//! The attention of a block: the projections of queries, keys and values, norms and positions on them,
//! and the projection of what they give.
//!
//! *Why*: queries, keys and values stay inside the projection's output, and their gradients take the
//! same places, so that little is moved beside the matmuls.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::arch::{Architecture, QkNorm, Qkv};
use super::linear::{Linear, backward_shared_input};
use super::norm::NormLayer;
use super::parameters::{Layout, Params, Weights};
use crate::error::Result;
use crate::kernels::attention::{self, Packing, Scores};
use crate::kernels::kv_cache::{KvCache, Places};
use crate::kernels::rotary::Angles;
use crate::kernels::{Dst, elementwise, norm, rotary};

/// Attention by its places in the flat buffers.
#[derive(Debug)]
pub(super) struct Attention {
    qkv: Projections,
    qk_norm: Option<HeadNorms>,
    scores: Scores,
    heads: Heads,
    /// The projection to the residual stream.
    pub out: Linear,
}

/// The norms of queries and of keys.
#[derive(Debug)]
struct HeadNorms {
    norms: [NormLayer; 2],
    /// Over all heads together rather than each.
    whole: bool,
}

/// The projections of queries, keys and values.
#[derive(Debug)]
enum Projections {
    /// Query, key, value; perhaps rows of one weight.
    Separate([Linear; 3]),
    /// One, whose output is (tokens, heads, 3, head_dim).
    HeadInterleaved([Linear; 1]),
}

#[derive(Debug, Clone, Copy)]
struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
}

/// What the backward pass needs.
pub(super) struct Activations {
    pub projected: Projected,
    qk_norm: Option<[norm::Saved; 2]>,
    attention: attention::Saved,
    /// (queries, heads * head_dim).
    pub attended: Tensor,
}

/// Queries, keys and values, rotated: views of one tensor, which is (tokens, heads, 3, head_dim) of
/// interleaved projections and (tokens, heads + 2 kv_heads, head_dim) of separate ones.
pub(super) struct Projected {
    /// (tokens, heads, head_dim).
    pub q: Tensor,
    /// (tokens, kv_heads, head_dim).
    pub k: Tensor,
    /// (tokens, kv_heads, head_dim).
    pub v: Tensor,
}

impl Heads {
    fn width(self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// The columns of queries, keys and values of separate projections.
    fn columns(self) -> [Range<usize>; 3] {
        let (query, key) = (self.query * self.dim, self.kv * self.dim);
        [0..query, query..query + key, query + key..query + 2 * key]
    }
}

impl Projections {
    fn layers(&self) -> &[Linear] {
        match self {
            Self::Separate(layers) => layers,
            Self::HeadInterleaved(layer) => layer,
        }
    }

    /// `h` (tokens, hidden) -> (tokens, width).
    fn forward(&self, weights: Weights, heads: Heads, h: &Tensor) -> Result<Tensor> {
        match self {
            Self::HeadInterleaved([layer]) => layer.forward(weights, h),
            Self::Separate(layers) => {
                let mut whole = elementwise::zeros((h.dim(0)?, heads.width()), h)?;
                for (layer, columns) in layers.iter().zip(heads.columns()) {
                    layer.forward_into(weights, h, Dst::columns(&mut whole, columns)?)?;
                }
                Ok(whole)
            }
        }
    }

    /// Queries, keys and values as views of `whole` (tokens, width).
    fn split(&self, heads: Heads, whole: &Tensor) -> Result<Projected> {
        let tokens = whole.dim(0)?;
        let Heads { query, kv, dim } = heads;
        let [q, k, v] = match self {
            Self::HeadInterleaved(_) => {
                let heads = whole.reshape((tokens, query, 3, dim))?;
                let part = |i| heads.narrow(2, i, 1)?.squeeze(2);
                [part(0)?, part(1)?, part(2)?]
            }
            Self::Separate(_) => {
                let all = whole.reshape((tokens, query + 2 * kv, dim))?;
                let part = |start, count| all.narrow(1, start, count);
                [part(0, query)?, part(query, kv)?, part(query + kv, kv)?]
            }
        };
        Ok(Projected { q, k, v })
    }

    /// The columns of `whole` that each projection gave.
    fn outputs(&self, heads: Heads, whole: Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::HeadInterleaved(_) => Ok(vec![whole]),
            Self::Separate(_) => {
                let columns = heads.columns();
                let parts = columns.map(|c| whole.narrow(1, c.start, c.len()));
                Ok(parts.into_iter().collect::<candle_core::Result<_>>()?)
            }
        }
    }
}

impl Attention {
    /// That of a layer.
    pub(super) fn new(arch: &Architecture, layout: &Layout, layer: usize) -> Self {
        let name = |part: &String| arch.block_name(layer, part);
        let linear = |part: &String| Linear::new(layout, &name(part));
        let norm = |part: &String| NormLayer::new(layout, arch.norm, &name(part));
        let heads = Heads {
            query: arch.heads,
            kv: arch.kv_heads,
            dim: arch.head_dim,
        };
        Self {
            qkv: match &arch.qkv {
                Qkv::Separate(parts) => Projections::Separate(parts.each_ref().map(linear)),
                Qkv::Stacked(part) => {
                    let rows = heads.columns().map(|columns| columns.len());
                    Projections::Separate(Linear::stacked(layout, &name(part), rows))
                }
                Qkv::HeadInterleaved(part) => Projections::HeadInterleaved([linear(part)]),
            },
            qk_norm: arch.qk_norm.as_ref().map(|norms| {
                let (parts, whole) = match norms {
                    QkNorm::PerHead(parts) => (parts, false),
                    QkNorm::Whole(parts) => (parts, true),
                };
                HeadNorms {
                    norms: parts.each_ref().map(norm),
                    whole,
                }
            }),
            scores: arch.scores(layer),
            heads,
            out: linear(&arch.names.attention_out),
        }
    }

    /// The projections that read attention's input.
    pub(super) fn inputs(&self) -> &[Linear] {
        self.qkv.layers()
    }

    /// Whether any of it is trained but [`Self::out`].
    pub(super) fn trainable_before_out(&self) -> bool {
        let norms = self.qk_norm.iter().flat_map(|heads| &heads.norms);
        self.inputs().iter().any(Linear::trainable) || norms.into_iter().any(NormLayer::trainable)
    }

    /// Queries, keys and values of `h` (tokens, hidden), rotated, and what the norms on them keep.
    pub(super) fn project(
        &self,
        weights: Weights,
        h: &Tensor,
        angles: Option<&Angles>,
    ) -> Result<(Projected, Option<[norm::Saved; 2]>)> {
        let whole = self.qkv.forward(weights, self.heads, h)?;
        let mut projected = self.qkv.split(self.heads, &whole)?;
        let qk_norm = match &self.qk_norm {
            Some(HeadNorms { norms, whole }) => {
                let norm = |layer: &NormLayer, heads: &mut Tensor| -> Result<norm::Saved> {
                    let x = elementwise::copy(heads)?;
                    let (y, saved) = layer.forward(weights, &joined(x, *whole)?)?;
                    let y = y.reshape(heads.dims())?;
                    elementwise::assign(heads, &y)?;
                    Ok(saved)
                };
                Some([
                    norm(&norms[0], &mut projected.q)?,
                    norm(&norms[1], &mut projected.k)?,
                ])
            }
            None => None,
        };
        if let Some(angles) = angles {
            rotary::rotate(&mut projected.q, angles)?;
            rotary::rotate(&mut projected.k, angles)?;
        }
        Ok((projected, qk_norm))
    }

    fn scores(&self, weights: Weights) -> Scores {
        Scores {
            precision: weights.precision,
            ..self.scores
        }
    }

    /// Attention of all tokens to those before them.
    pub(super) fn attend(
        &self,
        weights: Weights,
        (projected, qk_norm): (Projected, Option<[norm::Saved; 2]>),
        packing: &Packing,
    ) -> Result<Activations> {
        let Projected { q, k, v } = &projected;
        let (attended, attention) = attention::attention(q, k, v, packing, self.scores(weights))?;
        Ok(Activations {
            projected,
            qk_norm,
            attention,
            attended: attended.flatten_from(1)?,
        })
    }

    /// Attention of one new token for each row to those before it in `cache`, which gets the token's
    /// key and value: (rows, heads * head_dim).
    pub(super) fn extend(
        &self,
        projected: &Projected,
        places: &Places,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let Projected { q, k, v } = projected;
        Ok(cache.extend(places, q, k, v)?.flatten_from(1)?)
    }

    /// Adds the gradient of [`Self::out`], given that of attention's output, and gives that of what it
    /// read where it is `wanted`.
    pub(super) fn backward_out(
        &self,
        weights: Weights,
        dout: &Tensor,
        attended: &Tensor,
        wanted: bool,
        into: &mut Params,
    ) -> Result<Option<Tensor>> {
        self.out
            .backward_parameters(weights, dout, attended, into)?;
        match wanted {
            true => self.out.backward_input(weights, dout).map(Some),
            false => Ok(None),
        }
    }

    /// The gradients of the projections' outputs, given `dattended` (queries, heads * head_dim); adds
    /// those of the norms on queries and keys.
    pub(super) fn backward_attend(
        &self,
        weights: Weights,
        dattended: Tensor,
        activations: Activations,
        (angles, packing): (Option<&Angles>, &Packing),
        into: &mut Params,
    ) -> Result<Vec<Tensor>> {
        let Activations {
            projected,
            qk_norm,
            attention,
            attended,
        } = activations;
        drop(attended);
        let tokens = projected.q.dim(0)?;
        let mut dwhole = elementwise::zeros((tokens, self.heads.width()), &projected.q)?;
        let Projected { q, k, v } = &projected;
        let scores = self.scores(weights);
        attention::backward(
            &dattended,
            (q, k, v),
            &attention,
            packing,
            scores,
            &mut dwhole,
        )?;
        drop((projected, dattended));
        let mut dprojected = self.qkv.split(self.heads, &dwhole)?;
        if let Some(angles) = angles {
            rotary::rotate_back(&mut dprojected.q, angles)?;
            rotary::rotate_back(&mut dprojected.k, angles)?;
        }
        if let (Some(HeadNorms { norms, whole }), Some(saved)) = (&self.qk_norm, &qk_norm) {
            let mut back =
                |layer: &NormLayer, heads: &mut Tensor, saved: &norm::Saved| -> Result<()> {
                    let dy = joined(elementwise::copy(heads)?, *whole)?;
                    let mut dx = dy.zeros_like()?;
                    layer.backward(weights, &dy, saved, into, &mut dx)?;
                    let dx = dx.reshape(heads.dims())?;
                    elementwise::assign(heads, &dx)
                };
            back(&norms[0], &mut dprojected.q, &saved[0])?;
            back(&norms[1], &mut dprojected.k, &saved[1])?;
        }
        self.qkv.outputs(self.heads, dwhole)
    }

    /// Adds the gradients of [`Self::inputs`], given those of their outputs, and gives that of
    /// attention's input in `dtype` where it is wanted; `h` makes that input.
    pub(super) fn backward_inputs(
        &self,
        weights: Weights,
        dqkv: &[Tensor],
        h: impl FnOnce() -> Result<Tensor>,
        wanted: Option<DType>,
        into: &mut Params,
    ) -> Result<Option<Tensor>> {
        backward_shared_input(self.inputs(), weights, dqkv, h, wanted, into)
    }
}

/// Contiguous heads (tokens, heads, head_dim), as one row a token where a norm is over the whole.
fn joined(heads: Tensor, whole: bool) -> Result<Tensor> {
    match whole {
        true => Ok(heads.flatten_from(1)?),
        false => Ok(heads),
    }
}

#[cfg(test)]
impl Activations {
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let Projected { q, k, v } = &self.projected;
        let norms = self.qk_norm.iter().flatten();
        norms
            .flat_map(norm::Saved::tensors)
            .chain(self.attention.tensors())
            .chain([q, k, v, &self.attended])
            .collect()
    }
}
