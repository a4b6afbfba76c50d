//! Causal attention of packed segments: a token sees its segment's prefix and its own segment up to
//! itself.
//!
//! Hides that no (tokens, tokens) matrix exists: queries go in blocks, and only one block's scores
//! are there at a time. A prompt's keys and values serve all its responses.

mod packing;
mod plan;
#[cfg(test)]
mod tests;

use std::ops::Range;

use candle_core::Tensor;

pub use self::packing::Packing;
pub(super) use self::{packing::Group, plan::Plan};

use self::plan::BLOCK;
use super::cpu::{Disjoint, each_real, fresh, read, write};
use super::gemm::{Matrix, MatrixMut, Precision, Threads, gemm};
use super::profile::{Part, part};
use super::real::Real;
use super::softmax::{differentiate, probabilities, softmax};
use crate::error::{Error, Result};

/// How the score of a query and a key is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// The factor of every dot product.
    pub scale: f64,
    /// Sliding window: a token sees itself and the `window - 1` tokens before it, counted along
    /// prefix and own. All of them where `None`.
    pub window: Option<usize>,
}

/// What the backward pass needs beside the operands.
#[derive(Debug)]
pub struct Saved {
    /// (queries, heads): log of the sum of the exponentials of a query's scores; f32 on a GPU.
    log_sum_exp: Tensor,
    /// (queries, heads, head_dim).
    #[cfg(any(test, feature = "cuda"))]
    output: Tensor,
}

impl Saved {
    fn new(output: &Tensor, log_sum_exp: Tensor) -> Self {
        #[cfg(not(any(test, feature = "cuda")))]
        let _ = output;
        Self {
            log_sum_exp,
            #[cfg(any(test, feature = "cuda"))]
            output: output.clone(),
        }
    }
}

#[cfg(test)]
impl Saved {
    pub(crate) fn tensors(&self) -> [&Tensor; 1] {
        [&self.log_sum_exp]
    }
}

/// `q` (tokens, heads, head_dim), `k` and `v` (tokens, kv_heads, head_dim), which may be views of one
/// wider tensor -> (queries, heads, head_dim), the queries of all segments one after the other.
/// kv_heads divides heads.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    packing: &Packing,
    scores: Scores,
) -> Result<(Tensor, Saved)> {
    let _profile = part(Part::Attention);
    let plan = Plan::new(q, k, v, packing, scores)?;
    on_gpu!(q => {
        let (y, log_sum_exp) = super::gpu::attention::attention(&plan, [q, k, v])?;
        let saved = Saved::new(&y, log_sum_exp);
        Ok((y, saved))
    });
    // SAFETY: all of it is written below.
    let y = unsafe { fresh((plan.queries, plan.heads, plan.dim), q)? };
    // SAFETY: all of it is written below.
    let log_sum_exp = unsafe { fresh((plan.queries, plan.heads), q)? };
    each_real!(q, T => {
        let (q, k, v) = (read(q), read(k), read(v));
        let operands = Operands::<T>::new(&plan, q.values()?, k.values()?, v.values()?);
        write(&y, |y: &mut [T]| write(&log_sum_exp, |log_sum_exp: &mut [T]| {
            let (y, log_sum_exp) = (Disjoint::new(y), Disjoint::new(log_sum_exp));
            plan.for_each_head(|group, kv_head| operands.forward(group, kv_head, &y, &log_sum_exp));
            Ok(())
        }))
    })?;
    let saved = Saved::new(&y, log_sum_exp);
    Ok((y, saved))
}

/// Writes the gradients of q, k and v to `dqkv`, which holds zeros, in the places that they have in
/// `qkv`, the tensor they are views of; `dy` is laid out as the output of [`attention()`].
pub fn backward(
    dy: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    saved: &Saved,
    packing: &Packing,
    scores: Scores,
    dqkv: &Tensor,
) -> Result<()> {
    let _profile = part(Part::Attention);
    let plan = Plan::new(q, k, v, packing, scores)?;
    if !dy.is_contiguous() || dy.elem_count() != plan.queries * plan.heads * plan.dim {
        return Err(Error::failed(
            "attention: a gradient of another shape than the output",
        ));
    }
    let start = plan.places([q, k, v], dqkv)?;
    on_gpu!(q => {
        let Saved { log_sum_exp, output } = saved;
        let kept = [output, log_sum_exp];
        super::gpu::attention::backward(&plan, [q, k, v], dy, kept, (dqkv, start))
    });
    each_real!(q, T => {
        let (q, k, v) = (read(q), read(k), read(v));
        let operands = Operands::<T>::new(&plan, q.values()?, k.values()?, v.values()?);
        let (dy, log_sum_exp) = (read(dy), read(&saved.log_sum_exp));
        let (dy, log_sum_exp) = (dy.values::<T>()?, log_sum_exp.values::<T>()?);
        write(dqkv, |values: &mut [T]| {
            let values = Disjoint::new(values);
            plan.for_each_head(|group, kv_head| {
                operands.backward(group, kv_head, dy, log_sum_exp, &values, start);
            });
            Ok(())
        })
    })
}

/// The operands in memory.
struct Operands<'a, T> {
    plan: &'a Plan<'a>,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    scale: T,
}

impl<'a, T: Real> Operands<'a, T> {
    fn new(plan: &'a Plan<'a>, q: &'a [T], k: &'a [T], v: &'a [T]) -> Self {
        let scale = T::of(plan.scale);
        Self {
            plan,
            q,
            k,
            v,
            scale,
        }
    }

    /// Rows of a head: (rows, head_dim).
    fn head<'b>(
        &self,
        values: &'b [T],
        which: usize,
        rows: &Range<usize>,
        head: usize,
    ) -> Matrix<'b, T> {
        let (token, step) = self.plan.strides[which];
        let at = (rows.start * token + head * step).min(values.len());
        Matrix::new(&values[at..], (rows.len(), self.plan.dim), (token, 1))
    }

    fn own_heads(&self, kv_head: usize) -> Range<usize> {
        let group = self.plan.heads / self.plan.kv_heads;
        kv_head * group..(kv_head + 1) * group
    }

    fn forward(&self, group: &Group, kv_head: usize, y: &Disjoint<T>, log_sum_exp: &Disjoint<T>) {
        let (plan, dim) = (self.plan, self.plan.dim);
        let mut out = vec![T::ZERO; BLOCK * dim];
        let mut sums = vec![T::ZERO; BLOCK];
        let mut scores = Vec::new();
        for (segment, block, first) in plan.blocks(group) {
            let (keys, visible) = plan.keys(segment, &block);
            let width = keys[0].len() + keys[1].len();
            scores.resize(BLOCK * width, T::ZERO);
            for head in self.own_heads(kv_head) {
                let q = self.head(self.q, 0, &block, head);
                let scores = &mut scores[..block.len() * width];
                self.each_part(scores, width, &keys, |part, keys| {
                    let k = self.head(self.k, 1, keys, kv_head);
                    product(part, false, q, k.t());
                });
                softmax(scores, width, visible, plan.window, self.scale, &mut sums);
                let mut add = false;
                let mut at = 0;
                for keys in keys.iter().filter(|keys| !keys.is_empty()) {
                    let p = Matrix::new(&scores[at..], (block.len(), keys.len()), (width, 1));
                    let out = MatrixMut::rows(&mut out, (block.len(), dim));
                    product(out, add, p, self.head(self.v, 2, keys, kv_head));
                    (add, at) = (true, at + keys.len());
                }
                for row in 0..block.len() {
                    let place = (first + row) * plan.heads + head;
                    // SAFETY: a query's head belongs to one task alone.
                    unsafe {
                        y.part(place * dim, dim)
                            .copy_from_slice(&out[row * dim..][..dim]);
                        log_sum_exp.part(place, 1)[0] = sums[row];
                    }
                }
            }
        }
    }

    fn backward(
        &self,
        group: &Group,
        kv_head: usize,
        dy: &[T],
        log_sum_exp: &[T],
        dqkv: &Disjoint<T>,
        start: [usize; 3],
    ) {
        let (plan, dim, first_token) = (self.plan, self.plan.dim, group.tokens.start);
        let mut dq = vec![T::ZERO; BLOCK * dim];
        let mut sums = vec![T::ZERO; BLOCK];
        let mut dkv = [(); 2].map(|()| vec![T::ZERO; group.tokens.len() * dim]);
        let (mut p, mut dp) = (Vec::new(), Vec::new());
        for (segment, block, first) in plan.blocks(group) {
            let (keys, visible) = plan.keys(segment, &block);
            let width = keys[0].len() + keys[1].len();
            p.resize(BLOCK * width, T::ZERO);
            dp.resize(BLOCK * width, T::ZERO);
            for head in self.own_heads(kv_head) {
                let q = self.head(self.q, 0, &block, head);
                let at = (first * plan.heads + head) * dim;
                let dout = Matrix::new(&dy[at..], (block.len(), dim), (plan.heads * dim, 1));
                for (row, sum) in sums[..block.len()].iter_mut().enumerate() {
                    *sum = log_sum_exp[(first + row) * plan.heads + head];
                }
                let p = &mut p[..block.len() * width];
                let dp = &mut dp[..block.len() * width];
                self.each_part(p, width, &keys, |part, keys| {
                    product(part, false, q, self.head(self.k, 1, keys, kv_head).t());
                });
                self.each_part(dp, width, &keys, |part, keys| {
                    product(part, false, dout, self.head(self.v, 2, keys, kv_head).t());
                });
                probabilities(p, width, visible, plan.window, self.scale, &sums);
                let (mut add, mut at) = (false, 0);
                let parts = keys.iter().filter(|keys| !keys.is_empty());
                for keys in parts.clone() {
                    let p = Matrix::new(&p[at..], (block.len(), keys.len()), (width, 1));
                    let dv = &mut dkv[1][(keys.start - first_token) * dim..];
                    product(MatrixMut::rows(dv, (keys.len(), dim)), true, p.t(), dout);
                    at += keys.len();
                }
                differentiate(dp, p, width, self.scale);
                at = 0;
                for keys in parts {
                    let ds = Matrix::new(&dp[at..], (block.len(), keys.len()), (width, 1));
                    let dk = &mut dkv[0][(keys.start - first_token) * dim..];
                    product(MatrixMut::rows(dk, (keys.len(), dim)), true, ds.t(), q);
                    let dq = MatrixMut::rows(&mut dq, (block.len(), dim));
                    product(dq, add, ds, self.head(self.k, 1, keys, kv_head));
                    (add, at) = (true, at + keys.len());
                }
                let (token, step) = plan.strides[0];
                for (row, token_at) in block.clone().enumerate() {
                    let place = start[0] + token_at * token + head * step;
                    // SAFETY: a query's head belongs to one task alone.
                    let to = unsafe { dqkv.part(place, dim) };
                    to.copy_from_slice(&dq[row * dim..][..dim]);
                }
            }
        }
        for (which, values) in dkv.iter().enumerate() {
            let (token, step) = plan.strides[1 + which];
            for (row, token_at) in group.tokens.clone().enumerate() {
                let place = start[1 + which] + token_at * token + kv_head * step;
                // SAFETY: a token's head of keys belongs to one task alone.
                let to = unsafe { dqkv.part(place, dim) };
                to.copy_from_slice(&values[row * dim..][..dim]);
            }
        }
    }

    /// The columns of a block's scores that belong to prefix and own, if there are any.
    fn each_part(
        &self,
        scores: &mut [T],
        width: usize,
        keys: &[Range<usize>; 2],
        mut f: impl FnMut(MatrixMut<T>, &Range<usize>),
    ) {
        let rows = scores.len() / width;
        let mut at = 0;
        for keys in keys.iter().filter(|keys| !keys.is_empty()) {
            f(
                MatrixMut::new(&mut scores[at..], (rows, keys.len()), (width, 1)),
                keys,
            );
            at += keys.len();
        }
    }
}

fn product<T: Real>(c: MatrixMut<T>, add: bool, a: Matrix<T>, b: Matrix<T>) {
    gemm(c, add, a, b, Precision::Full, Threads::One);
}
