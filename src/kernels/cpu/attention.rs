//! Attention of packed segments in host memory: queries go in blocks, and only one block's scores are
//! there at a time.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use super::gemm::{Multiply, gemm};
use super::host::{Disjoint, each_real, read, write};
use super::matrix::{Matrix, MatrixMut, Threads};
use super::softmax::{cap_slopes, differentiate, multiply, probabilities, soft_cap, softmax};
use crate::error::Result;
use crate::kernels::operands::attention::{Group, Plan};
use crate::kernels::precision::Precision;
use crate::kernels::tensor::{Dst, fresh};
use crate::segment::Segment;

/// Queries whose scores are held at once, per head.
const BLOCK: usize = 64;

/// The output and the log of each query's sum.
pub fn attention(plan: &Plan, [q, k, v]: [&Tensor; 3]) -> Result<(Tensor, Tensor)> {
    // SAFETY: all of both is written below.
    let (mut y, mut log_sum_exp) = unsafe {
        let y = fresh((plan.queries, plan.heads, plan.dim), q)?;
        (y, fresh((plan.queries, plan.heads), q)?)
    };
    each_real!(q, T => {
        let (q, k, v) = (read(q), read(k), read(v));
        let operands = Operands::<T>::new(plan, q.values()?, k.values()?, v.values()?);
        write((&mut y).into(), |y: &mut [T]| write((&mut log_sum_exp).into(), |log_sum_exp: &mut [T]| {
            let (y, log_sum_exp) = (Disjoint::new(y), Disjoint::new(log_sum_exp));
            for_each_head(plan, |group, kv_head| {
                operands.forward(group, kv_head, &y, &log_sum_exp);
            });
            Ok(())
        }))
    })?;
    Ok((y, log_sum_exp))
}

/// Writes the gradients of queries, keys and values at `start` of `dqkv`.
pub fn backward(
    plan: &Plan,
    [q, k, v]: [&Tensor; 3],
    dy: &Tensor,
    log_sum_exp: &Tensor,
    (dqkv, start): (Dst, [usize; 3]),
) -> Result<()> {
    each_real!(q, T => {
        let (q, k, v) = (read(q), read(k), read(v));
        let operands = Operands::<T>::new(plan, q.values()?, k.values()?, v.values()?);
        let (dy, log_sum_exp) = (read(dy), read(log_sum_exp));
        let (dy, log_sum_exp) = (dy.values::<T>()?, log_sum_exp.values::<T>()?);
        write(dqkv, |values: &mut [T]| {
            let values = Disjoint::new(values);
            for_each_head(plan, |group, kv_head| {
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
    softcap: Option<T>,
    /// What is left to multiply scores by: those below a soft cap are scaled already.
    rest: T,
    precision: Precision,
}

impl<'a, T: Multiply> Operands<'a, T> {
    fn new(plan: &'a Plan<'a>, q: &'a [T], k: &'a [T], v: &'a [T]) -> Self {
        let (scale, softcap) = (T::of(plan.scale), plan.softcap.map(T::of));
        let rest = if softcap.is_some() { T::ONE } else { scale };
        Self {
            plan,
            q,
            k,
            v,
            scale,
            softcap,
            rest,
            precision: plan.precision,
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
        for (segment, block, first) in blocks(plan, group) {
            let (keys, visible) = visible_keys(plan, segment, &block);
            let width = keys[0].len() + keys[1].len();
            scores.resize(BLOCK * width, T::ZERO);
            for head in self.own_heads(kv_head) {
                let q = self.head(self.q, 0, &block, head);
                let scores = &mut scores[..block.len() * width];
                self.each_part(scores, width, &keys, |part, keys| {
                    let k = self.head(self.k, 1, keys, kv_head);
                    self.product(part, false, q, k.t());
                });
                if let Some(cap) = self.softcap {
                    soft_cap(scores, self.scale, cap);
                }
                softmax(scores, width, visible, plan.window, self.rest, &mut sums);
                let mut add = false;
                let mut at = 0;
                for keys in keys.iter().filter(|keys| !keys.is_empty()) {
                    let p = Matrix::new(&scores[at..], (block.len(), keys.len()), (width, 1));
                    let out = MatrixMut::rows(&mut out, (block.len(), dim));
                    self.product(out, add, p, self.head(self.v, 2, keys, kv_head));
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
        let (mut p, mut dp, mut slopes) = (Vec::new(), Vec::new(), Vec::new());
        for (segment, block, first) in blocks(plan, group) {
            let (keys, visible) = visible_keys(plan, segment, &block);
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
                    self.product(part, false, q, self.head(self.k, 1, keys, kv_head).t());
                });
                self.each_part(dp, width, &keys, |part, keys| {
                    self.product(part, false, dout, self.head(self.v, 2, keys, kv_head).t());
                });
                if let Some(cap) = self.softcap {
                    soft_cap(p, self.scale, cap);
                    slopes.resize(p.len(), T::ZERO);
                    cap_slopes(&mut slopes, p, cap);
                }
                probabilities(p, width, visible, plan.window, self.rest, &sums);
                let (mut add, mut at) = (false, 0);
                let parts = keys.iter().filter(|keys| !keys.is_empty());
                for keys in parts.clone() {
                    let p = Matrix::new(&p[at..], (block.len(), keys.len()), (width, 1));
                    let dv = &mut dkv[1][(keys.start - first_token) * dim..];
                    self.product(MatrixMut::rows(dv, (keys.len(), dim)), true, p.t(), dout);
                    at += keys.len();
                }
                differentiate(dp, p, width, self.scale);
                if self.softcap.is_some() {
                    multiply(dp, &slopes);
                }
                at = 0;
                for keys in parts {
                    let ds = Matrix::new(&dp[at..], (block.len(), keys.len()), (width, 1));
                    let dk = &mut dkv[0][(keys.start - first_token) * dim..];
                    self.product(MatrixMut::rows(dk, (keys.len(), dim)), true, ds.t(), q);
                    let dq = MatrixMut::rows(&mut dq, (block.len(), dim));
                    self.product(dq, add, ds, self.head(self.k, 1, keys, kv_head));
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

    /// `c = a b`, or `c += a b` where `add`.
    fn product(&self, c: MatrixMut<T>, add: bool, a: Matrix<T>, b: Matrix<T>) {
        gemm(c, add, a, b, self.precision, Threads::One);
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

/// Every group and head of keys is a task of its own.
fn for_each_head(plan: &Plan, task: impl Fn(&Group, usize) + Sync) {
    let groups = &plan.segments.groups;
    let tasks = groups.len() * plan.kv_heads;
    let run = |at: usize| task(&groups[at / plan.kv_heads], at % plan.kv_heads);
    (0..tasks).into_par_iter().with_max_len(1).for_each(run);
}

/// Blocks of a group's queries: the segment, the block and its first row in the output.
fn blocks<'a>(
    plan: &'a Plan,
    group: &Group,
) -> impl Iterator<Item = (&'a Segment, Range<usize>, usize)> + use<'a> {
    let mut output = group.output;
    plan.segments.all[group.segments.clone()]
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
fn visible_keys(
    plan: &Plan,
    segment: &Segment,
    block: &Range<usize>,
) -> ([Range<usize>; 2], usize) {
    let before = segment.prefix.len() + block.start - segment.own.start;
    let hidden = (before + 1).saturating_sub(plan.window);
    let prefix = (segment.prefix.start + hidden).min(segment.prefix.end)..segment.prefix.end;
    let beyond = hidden.saturating_sub(segment.prefix.len());
    let own = segment.own.start + beyond..block.end;
    ([prefix, own], before + 1 - hidden)
}
