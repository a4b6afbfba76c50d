//! One transformer block: attention and feed-forward around the residual stream.
//!
//! *Why*: the backward pass works in the memory of the gradient that it is given, and queries, keys
//! and values stay inside the projection's output, so that a block moves little beside its products.

use std::ops::Range;

use candle_core::Tensor;

use super::affine::Affine;
use super::arch::Architecture;
use super::generate::size;
use super::parameters::{Buffer, Layout, block_name};
use crate::error::Result;
use crate::kernels::attention::{Packing, Scores};
use crate::kernels::embedding::Ids;
use crate::kernels::kv_cache::{KvCache, Places};
use crate::kernels::rotary::Angles;
use crate::kernels::{activation, attention, elementwise, embedding, norm, rotary};

/// The places of a block's parameters in the flat buffer.
#[derive(Debug)]
pub(super) struct Block {
    norm1: Affine,
    /// One projection where fused, else query, key, value.
    qkv: Vec<Affine>,
    /// Of each head of query and key, where the family has such norms.
    qk_norm: Option<[Affine; 2]>,
    scores: Scores,
    attention_out: Affine,
    norm2: Affine,
    /// Gate and up, or up alone.
    mlp_in: Vec<Affine>,
    mlp_out: Affine,
}

/// What a block's backward pass needs. Outputs of norms are made again from what norms keep.
pub(super) struct Saved {
    norm1: norm::Saved,
    qk_norm: Option<[norm::Saved; 2]>,
    projected: Projected,
    attention: attention::Saved,
    /// (queries, heads * head_dim).
    attended: Tensor,
    norm2: norm::Saved,
    /// (queries, intermediate) each: the inputs of the activation.
    mlp: Vec<Tensor>,
}

/// Queries, keys and values, rotated: views of one tensor, which is (tokens, heads, 3, head_dim) of a
/// fused projection and (tokens, heads + 2 kv_heads, head_dim) of separate ones.
struct Projected {
    /// (tokens, heads, head_dim).
    q: Tensor,
    /// (tokens, kv_heads, head_dim).
    k: Tensor,
    /// (tokens, kv_heads, head_dim).
    v: Tensor,
}

impl Projected {
    /// Views of `whole` (tokens, width).
    fn new(arch: &Architecture, whole: &Tensor) -> Result<Self> {
        let tokens = whole.dim(0)?;
        let (heads, kv_heads, dim) = (arch.heads, arch.kv_heads, arch.head_dim);
        let [q, k, v] = if arch.fused_qkv {
            let heads = whole.reshape((tokens, heads, 3, dim))?;
            let part = |i| heads.narrow(2, i, 1)?.squeeze(2);
            [part(0)?, part(1)?, part(2)?]
        } else {
            let all = whole.reshape((tokens, heads + 2 * kv_heads, dim))?;
            let part = |start, count| all.narrow(1, start, count);
            [
                part(0, heads)?,
                part(heads, kv_heads)?,
                part(heads + kv_heads, kv_heads)?,
            ]
        };
        Ok(Self { q, k, v })
    }
}

/// Which tokens see which, and whose output is wanted.
pub(super) struct Reach {
    pub packing: Packing,
    /// (queries): the tokens whose output is wanted, in order; all where `None`.
    pub rows: Option<Ids>,
}

impl Saved {
    /// Keys and values of all tokens, (tokens, kv_heads, head_dim).
    pub(super) fn keys_values(&self) -> (&Tensor, &Tensor) {
        (&self.projected.k, &self.projected.v)
    }

    #[cfg(test)]
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let Projected { q, k, v } = &self.projected;
        let norms = [Some(&self.norm1), Some(&self.norm2)].into_iter().flatten();
        let norms = norms.chain(self.qk_norm.iter().flatten());
        norms
            .flat_map(norm::Saved::tensors)
            .chain(self.attention.tensors())
            .chain([q, k, v, &self.attended])
            .chain(&self.mlp)
            .collect()
    }
}

impl Block {
    pub(super) fn new(arch: &Architecture, layout: &Layout, layer: usize) -> Self {
        let affine = |part: &str| Affine::new(layout, &block_name(arch, layer, part));
        let all = |parts: &[&str]| parts.iter().map(|part| affine(part)).collect();
        let names = &arch.names;
        Self {
            norm1: affine(names.norm1),
            qkv: all(names.qkv),
            qk_norm: names.qk_norm.map(|parts| parts.map(affine)),
            scores: arch.scores(layer),
            attention_out: affine(names.attention_out),
            norm2: affine(names.norm2),
            mlp_in: all(names.mlp_in),
            mlp_out: affine(names.mlp_out),
        }
    }

    /// `x` (tokens, hidden) -> (queries, hidden): the outputs that `reach` wants.
    pub(super) fn forward(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        x: &Tensor,
        angles: &Angles,
        reach: &Reach,
    ) -> Result<(Tensor, Saved)> {
        let (projected, norm1, qk_norm) = self.project(arch, weights, x, angles)?;
        let Projected { q, k, v } = &projected;
        let (attended, attention) = attention::attention(q, k, v, &reach.packing, self.scores)?;
        let attended = attended.flatten_from(1)?;
        let x = match &reach.rows {
            Some(rows) => &embedding::gather(x, rows, x.dtype())?,
            None => x,
        };
        let (y, norm2, mlp) = self.finish(arch, weights, x, &attended)?;
        let saved = Saved {
            norm1,
            qk_norm,
            projected,
            attention,
            attended,
            norm2,
            mlp,
        };
        Ok((y, saved))
    }

    /// The bytes of its matrices.
    pub(super) fn bytes(&self, weights: &Buffer) -> u64 {
        let all = self.qkv.iter().chain(&self.mlp_in);
        let all = all.chain([&self.attention_out, &self.mlp_out]);
        all.map(|affine| size(affine.weight(weights))).sum()
    }

    /// One new token for each row of a step, `x` (rows, hidden), after those of its sequence in `kept`,
    /// which gets its keys and values.
    pub(super) fn extend(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        x: &Tensor,
        (angles, places): (&Angles, &Places),
        kept: &mut KvCache,
    ) -> Result<Tensor> {
        let (projected, ..) = self.project(arch, weights, x, angles)?;
        let Projected { q, k, v } = &projected;
        let attended = kept.extend(places, q, k, v)?.flatten_from(1)?;
        Ok(self.finish(arch, weights, x, &attended)?.0)
    }

    /// From the block's input to rotated queries, keys and values.
    fn project(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        x: &Tensor,
        angles: &Angles,
    ) -> Result<(Projected, norm::Saved, Option<[norm::Saved; 2]>)> {
        let (h, norm1) = self.norm1.norm(weights, x, arch.norm)?;
        let whole = match self.qkv.as_slice() {
            [fused] => fused.apply(weights, &h)?,
            separate => {
                let whole = elementwise::zeros((h.dim(0)?, projected_width(arch)), &h)?;
                for (projection, columns) in separate.iter().zip(columns(arch)) {
                    let part = whole.narrow(1, columns.start, columns.len())?;
                    projection.apply_into(weights, &h, &part)?;
                }
                whole
            }
        };
        let projected = Projected::new(arch, &whole)?;
        let qk_norm = match &self.qk_norm {
            Some([q_norm, k_norm]) => {
                let norm = |affine: &Affine, heads: &Tensor| -> Result<norm::Saved> {
                    let x = elementwise::copy(heads)?;
                    let (y, saved) = affine.norm(weights, &x, arch.norm)?;
                    elementwise::assign(heads, &y)?;
                    Ok(saved)
                };
                Some([norm(q_norm, &projected.q)?, norm(k_norm, &projected.k)?])
            }
            None => None,
        };
        rotary::rotate(&projected.q, angles)?;
        rotary::rotate(&projected.k, angles)?;
        Ok((projected, norm1, qk_norm))
    }

    /// From the block's input and what attention gave, (n, heads * head_dim), to its output.
    fn finish(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        x: &Tensor,
        attended: &Tensor,
    ) -> Result<(Tensor, norm::Saved, Vec<Tensor>)> {
        let biases = [&self.attention_out, &self.mlp_out].map(|affine| affine.bias(weights));
        let begin = |x: &Tensor, biases: &[Option<&Tensor>]| {
            let biases: Vec<&Tensor> = biases.iter().copied().flatten().collect();
            elementwise::residual(x, &biases)
        };
        let feed_forward = |read: &Tensor, y: &Tensor| -> Result<_> {
            let (h, norm2) = self.norm2.norm(weights, read, arch.norm)?;
            let mlp = self.mlp_in.iter().map(|p| p.apply(weights, &h));
            let mlp = mlp.collect::<Result<Vec<_>>>()?;
            self.mlp_out.add_product(weights, &activate(&mlp)?, y)?;
            Ok((norm2, mlp))
        };
        if arch.parallel_residual {
            let y = begin(x, &biases)?;
            self.attention_out.add_product(weights, attended, &y)?;
            let (norm2, mlp) = feed_forward(x, &y)?;
            return Ok((y, norm2, mlp));
        }
        let after_attention = begin(x, &biases[..1])?;
        self.attention_out
            .add_product(weights, attended, &after_attention)?;
        let y = begin(&after_attention, &biases[1..])?;
        let (norm2, mlp) = feed_forward(&after_attention, &y)?;
        Ok((y, norm2, mlp))
    }

    /// Adds the block's weight gradients; turns the gradient of its output, `dy` (queries, hidden),
    /// which nobody else may hold, into that of its input, (tokens, hidden).
    pub(super) fn backward(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        dy: Tensor,
        saved: Saved,
        (angles, reach): (&Angles, &Reach),
        into: &Buffer,
    ) -> Result<Tensor> {
        let Saved {
            norm1,
            qk_norm,
            projected,
            attention,
            attended,
            norm2,
            mlp,
        } = saved;
        let attention_out = |dout: &Tensor| -> Result<Tensor> {
            self.attention_out
                .backward_parameters(weights, dout, &attended, into)?;
            self.attention_out.backward_input(weights, dout)
        };
        let dout = elementwise::operand(&dy, &attended)?;
        let mut dattended = None;
        // In the sequential layout the feed-forward's gradient also reaches attention.
        if arch.parallel_residual {
            dattended = Some(attention_out(&dout)?);
        }
        let dhidden = self.mlp_out.backward_input(weights, &dout)?;
        let (hidden, dmlp) = activate_backward(dhidden, &mlp)?;
        self.mlp_out
            .backward_parameters(weights, &dout, &hidden, into)?;
        drop((dout, hidden, mlp));
        let h = self.norm2.norm_output(weights, &norm2)?;
        let dh = sum_backward(&self.mlp_in, weights, &dmlp, &h, into)?;
        self.norm2.norm_backward(weights, &dh, &norm2, into, &dy)?;
        drop((dmlp, dh, h, norm2));
        let dattended = match dattended {
            Some(dattended) => dattended,
            None => attention_out(&elementwise::operand(&dy, &attended)?)?,
        };
        drop(attended);

        let tokens = projected.q.dim(0)?;
        let dwhole = elementwise::zeros((tokens, projected_width(arch)), &projected.q)?;
        let Projected { q, k, v } = &projected;
        attention::backward(
            &dattended,
            (q, k, v),
            &attention,
            &reach.packing,
            self.scores,
            &dwhole,
        )?;
        drop((projected, dattended));
        let dprojected = Projected::new(arch, &dwhole)?;
        rotary::rotate_back(&dprojected.q, angles)?;
        rotary::rotate_back(&dprojected.k, angles)?;
        if let (Some([q_norm, k_norm]), Some([q_saved, k_saved])) = (&self.qk_norm, &qk_norm) {
            let back = |affine: &Affine, heads: &Tensor, saved: &norm::Saved| -> Result<()> {
                let (dx, dy) = (elementwise::copy(heads)?, elementwise::copy(heads)?);
                elementwise::clear(&dx)?;
                affine.norm_backward(weights, &dy, saved, into, &dx)?;
                elementwise::assign(heads, &dx)
            };
            back(q_norm, &dprojected.q, q_saved)?;
            back(k_norm, &dprojected.k, k_saved)?;
        }
        let dqkv = match self.qkv.as_slice() {
            [_] => vec![dwhole],
            _ => {
                let parts = columns(arch).map(|c| dwhole.narrow(1, c.start, c.len()));
                parts.into_iter().collect::<candle_core::Result<_>>()?
            }
        };
        let h = self.norm1.norm_output(weights, &norm1)?;
        let dh = sum_backward(&self.qkv, weights, &dqkv, &h, into)?;
        let dx = match &reach.rows {
            Some(rows) => {
                let dx = dh.zeros_like()?;
                embedding::scatter_add(&dy, rows, &dx)?;
                dx
            }
            None => dy,
        };
        self.norm1.norm_backward(weights, &dh, &norm1, into, &dx)?;
        Ok(dx)
    }
}

/// Columns of queries, keys and values together.
fn projected_width(arch: &Architecture) -> usize {
    (arch.heads + 2 * arch.kv_heads) * arch.head_dim
}

/// Those of each, where projections are separate.
fn columns(arch: &Architecture) -> [Range<usize>; 3] {
    let (query, key) = (arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim);
    [0..query, query..query + key, query + key..query + 2 * key]
}

/// Adds the weight gradients of several projections of `x`, and gives the gradient of `x`, in the dtype
/// of weight gradients.
fn sum_backward(
    projections: &[Affine],
    weights: &Buffer,
    dy: &[Tensor],
    x: &Tensor,
    into: &Buffer,
) -> Result<Tensor> {
    for (projection, dy) in projections.iter().zip(dy) {
        projection.backward_parameters(weights, dy, x, into)?;
    }
    let dx = projections[0].backward_input_as(weights, &dy[0], into.flat().dtype())?;
    for (projection, dy) in projections.iter().zip(dy).skip(1) {
        projection.backward_input_add(weights, dy, &dx)?;
    }
    Ok(dx)
}

fn activate(inputs: &[Tensor]) -> Result<Tensor> {
    match inputs {
        [gate, up] => activation::swiglu(gate, up),
        inputs => activation::gelu(&inputs[0]),
    }
}

/// The activation once more, and the gradient of each of its inputs; `dy` is used up.
fn activate_backward(dy: Tensor, inputs: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
    Ok(match inputs {
        [gate, up] => {
            let (y, dgate) = activation::swiglu_backward(&dy, gate, up)?;
            (y, vec![dgate, dy])
        }
        inputs => (activation::gelu_backward(&dy, &inputs[0])?, vec![dy]),
    })
}
