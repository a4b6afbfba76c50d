//! One transformer block: attention and feed-forward around the residual stream.

use candle_core::Tensor;

use super::arch::Architecture;
use super::decoder::Inputs;
use super::parameters::{Buffer, Layout, block_name};
use crate::error::Result;
use crate::kernels::key_values::KeyValues;
use crate::kernels::{activation, attention, linear, norm, rotary};

/// The places of a block's parameters in the flat buffer.
#[derive(Debug)]
pub(super) struct Block {
    norm1: Affine,
    /// One projection where fused, else query, key, value.
    qkv: Vec<Affine>,
    /// Of each head of query and key, where the family has such norms.
    qk_norm: Option<[Affine; 2]>,
    /// How many tokens a token sees, itself included; all where `None`.
    window: Option<usize>,
    attention_out: Affine,
    norm2: Affine,
    /// Gate and up, or up alone.
    mlp_in: Vec<Affine>,
    mlp_out: Affine,
}

/// A weight with its bias, if it has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    weight: usize,
    bias: Option<usize>,
}

/// What a block's backward pass needs. Outputs of norms are made again from what norms keep.
pub(super) struct Saved {
    norm1: norm::Saved,
    qk_norm: Option<[norm::Saved; 2]>,
    /// (tokens, heads, head_dim) and (tokens, kv_heads, head_dim), rotated.
    q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
    /// (tokens, heads * head_dim).
    attended: Tensor,
    norm2: norm::Saved,
    /// (tokens, intermediate) each: the inputs of the activation.
    mlp: Vec<Tensor>,
}

impl Affine {
    pub(super) fn new(layout: &Layout, name: &str) -> Self {
        let weight = layout.id(&format!("{name}.weight"));
        Self {
            weight,
            bias: layout.find(&format!("{name}.bias")),
        }
    }

    pub(super) fn weight<'a>(&self, buffer: &'a Buffer) -> &'a Tensor {
        buffer.view(self.weight)
    }

    pub(super) fn bias<'a>(&self, buffer: &'a Buffer) -> Option<&'a Tensor> {
        self.bias.map(|id| buffer.view(id))
    }

    fn apply(&self, weights: &Buffer, x: &Tensor) -> Result<Tensor> {
        linear::linear(x, self.weight(weights), self.bias(weights))
    }

    /// Adds the gradients of weight and bias; returns that of `x`.
    fn backward(&self, weights: &Buffer, dy: &Tensor, x: &Tensor, into: &Buffer) -> Result<Tensor> {
        linear::backward_weight(dy, x, self.weight(into))?;
        if let Some(dbias) = self.bias(into) {
            linear::backward_bias(dy, dbias)?;
        }
        linear::backward_input(dy, self.weight(weights))
    }

    pub(super) fn norm(
        &self,
        weights: &Buffer,
        x: &Tensor,
        epsilon: f64,
    ) -> Result<(Tensor, norm::Saved)> {
        norm::norm(x, self.weight(weights), self.bias(weights), epsilon)
    }

    fn norm_output(&self, weights: &Buffer, saved: &norm::Saved) -> Result<Tensor> {
        norm::output(saved, self.weight(weights), self.bias(weights))
    }

    pub(super) fn norm_backward(
        &self,
        weights: &Buffer,
        dy: &Tensor,
        saved: &norm::Saved,
        into: &Buffer,
    ) -> Result<Tensor> {
        norm::backward(
            dy,
            saved,
            self.weight(weights),
            self.weight(into),
            self.bias(into),
        )
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
            window: arch.windows[layer],
            attention_out: affine(names.attention_out),
            norm2: affine(names.norm2),
            mlp_in: all(names.mlp_in),
            mlp_out: affine(names.mlp_out),
        }
    }

    /// `x` (tokens, hidden) -> (tokens, hidden).
    pub(super) fn forward(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        x: &Tensor,
        batch: &Inputs,
    ) -> Result<(Tensor, Saved)> {
        self.apply(arch, weights, x, &batch.angles, |q, k, v| {
            attention::attention(q, k, v, &batch.segments, self.window)
        })
    }

    /// One new token per sequence, `x` (sequences, hidden), after those whose keys and values are
    /// in `cache`, which gets its own.
    pub(super) fn extend(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        x: &Tensor,
        angles: &rotary::Angles,
        cache: &mut KeyValues,
    ) -> Result<Tensor> {
        let attend = |q: &Tensor, k: &Tensor, v: &Tensor| cache.extend(q, k, v);
        Ok(self.apply(arch, weights, x, angles, attend)?.0)
    }

    /// The block, whose tokens see each other through `attend`: (tokens, heads, head_dim) of
    /// queries, keys and values -> the same of what was attended to.
    fn apply(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        x: &Tensor,
        angles: &rotary::Angles,
        attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<(Tensor, Saved)> {
        let (h, norm1) = self.norm1.norm(weights, x, arch.norm_epsilon)?;
        let [q, k, v] = self.queries_keys_values(arch, weights, &h)?;
        let ([q, k], qk_norm) = self.norm_heads(arch, weights, [q, k])?;
        let (q, k) = (rotary::rotate(&q, angles)?, rotary::rotate(&k, angles)?);
        let attended = attend(&q, &k, &v)?.flatten_from(1)?;
        let after_attention = (x + self.attention_out.apply(weights, &attended)?)?;

        let read = if arch.parallel_residual {
            x
        } else {
            &after_attention
        };
        let (h, norm2) = self.norm2.norm(weights, read, arch.norm_epsilon)?;
        let mlp = self
            .mlp_in
            .iter()
            .map(|p| p.apply(weights, &h))
            .collect::<Result<Vec<_>>>()?;
        let y = (after_attention + self.mlp_out.apply(weights, &activate(&mlp)?)?)?;
        Ok((
            y,
            Saved {
                norm1,
                qk_norm,
                q,
                k,
                v,
                attended,
                norm2,
                mlp,
            },
        ))
    }

    /// Adds the block's weight gradients; returns the gradient of its input, (tokens, hidden).
    pub(super) fn backward(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        dy: &Tensor,
        saved: Saved,
        batch: &Inputs,
        into: &Buffer,
    ) -> Result<Tensor> {
        let Saved {
            norm1,
            qk_norm,
            q,
            k,
            v,
            attended,
            norm2,
            mlp,
        } = saved;
        let dhidden = self.mlp_out.backward(weights, dy, &activate(&mlp)?, into)?;
        let dmlp = activate_backward(&dhidden, &mlp)?;
        let h = self.norm2.norm_output(weights, &norm2)?;
        let dh = sum_backward(&self.mlp_in, weights, &dmlp, &h, into)?;
        let through_mlp = (dy + self.norm2.norm_backward(weights, &dh, &norm2, into)?)?;

        // In the sequential layout the feed-forward's gradient also reaches attention.
        let dout = if arch.parallel_residual {
            dy
        } else {
            &through_mlp
        };
        let dattended = self
            .attention_out
            .backward(weights, dout, &attended, into)?;
        let dattended = dattended.reshape(q.shape())?;
        let (dq, dk, dv) =
            attention::backward(&dattended, &q, &k, &v, &batch.segments, self.window)?;
        let dq = rotary::rotate_back(&dq, &batch.angles)?;
        let dk = rotary::rotate_back(&dk, &batch.angles)?;
        let [dq, dk] = self.norm_heads_backward(weights, [dq, dk], qk_norm, into)?;
        let dqkv = if arch.fused_qkv {
            vec![Tensor::stack(&[dq, dk, dv], 2)?.flatten_from(1)?]
        } else {
            vec![
                dq.flatten_from(1)?,
                dk.flatten_from(1)?,
                dv.flatten_from(1)?,
            ]
        };
        let h = self.norm1.norm_output(weights, &norm1)?;
        let dh = sum_backward(&self.qkv, weights, &dqkv, &h, into)?;
        Ok((through_mlp + self.norm1.norm_backward(weights, &dh, &norm1, into)?)?)
    }

    /// (tokens, heads, head_dim) each; a fused projection is laid out (heads, [q, k, v], head_dim).
    fn queries_keys_values(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        h: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let tokens = h.dim(0)?;
        if let [fused] = self.qkv.as_slice() {
            let all = fused
                .apply(weights, h)?
                .reshape((tokens, arch.heads, 3, arch.head_dim))?;
            let part = |i| -> Result<Tensor> { Ok(all.narrow(2, i, 1)?.squeeze(2)?.contiguous()?) };
            return Ok([part(0)?, part(1)?, part(2)?]);
        }
        let part = |i: usize, heads: usize| -> Result<Tensor> {
            Ok(self.qkv[i]
                .apply(weights, h)?
                .reshape((tokens, heads, arch.head_dim))?)
        };
        Ok([
            part(0, arch.heads)?,
            part(1, arch.kv_heads)?,
            part(2, arch.kv_heads)?,
        ])
    }

    /// Query and key with each head normed, where the family does that.
    fn norm_heads(
        &self,
        arch: &Architecture,
        weights: &Buffer,
        [q, k]: [Tensor; 2],
    ) -> Result<([Tensor; 2], Option<[norm::Saved; 2]>)> {
        let Some([q_norm, k_norm]) = &self.qk_norm else {
            return Ok(([q, k], None));
        };
        let (q, q_saved) = q_norm.norm(weights, &q, arch.norm_epsilon)?;
        let (k, k_saved) = k_norm.norm(weights, &k, arch.norm_epsilon)?;
        Ok(([q, k], Some([q_saved, k_saved])))
    }

    fn norm_heads_backward(
        &self,
        weights: &Buffer,
        [dq, dk]: [Tensor; 2],
        saved: Option<[norm::Saved; 2]>,
        into: &Buffer,
    ) -> Result<[Tensor; 2]> {
        let (Some([q_norm, k_norm]), Some([q_saved, k_saved])) = (&self.qk_norm, saved) else {
            return Ok([dq, dk]);
        };
        Ok([
            q_norm.norm_backward(weights, &dq, &q_saved, into)?,
            k_norm.norm_backward(weights, &dk, &k_saved, into)?,
        ])
    }
}

/// The gradient of an input that several projections read.
fn sum_backward(
    projections: &[Affine],
    weights: &Buffer,
    dy: &[Tensor],
    x: &Tensor,
    into: &Buffer,
) -> Result<Tensor> {
    let mut dx = projections[0].backward(weights, &dy[0], x, into)?;
    for (projection, dy) in projections.iter().zip(dy).skip(1) {
        dx = (dx + projection.backward(weights, dy, x, into)?)?;
    }
    Ok(dx)
}

fn activate(inputs: &[Tensor]) -> Result<Tensor> {
    match inputs {
        [gate, up] => activation::swiglu(gate, up),
        inputs => activation::gelu(&inputs[0]),
    }
}

fn activate_backward(dy: &Tensor, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(match inputs {
        [gate, up] => {
            let (dgate, dup) = activation::swiglu_backward(dy, gate, up)?;
            vec![dgate, dup]
        }
        inputs => vec![activation::gelu_backward(dy, &inputs[0])?],
    })
}
