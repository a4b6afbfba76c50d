//! The KV cache in host memory, and attention of new tokens over it.
//!
//! Hides chunks: tokens are stored [`CHUNK`] at a time, keys as columns and values as rows. The chunks of
//! a prompt belong to all sequences after it, and a sequence takes another one when its last is full.
//!
//! *Why*: scores of neighbouring tokens then lie side by side, so nothing is summed across a vector; no
//! sequence takes more memory than its tokens; and a sum runs over one sequence's tokens in their
//! order, so that no bit of it depends on what else is computed.

use std::sync::Arc;

use candle_core::Tensor;
use half::bf16;
use rayon::prelude::*;

use super::host::{read, write};
use super::lanes::fetch;
use super::real::Real;
use super::simd::{LANES, vectorized};
use super::softmax::capped;
use crate::error::Result;
use crate::kernels::operands::attention::Scores;
use crate::kernels::operands::kv_cache::Places;
use crate::kernels::tensor::fresh;

/// Tokens of a chunk.
const CHUNK: usize = 64;

/// Multiplications below which a second thread costs more than it gains.
const SMALL: usize = 1 << 16;

/// What keys and values are cached as, beside queries of [`Real`](Self::Real).
pub trait Stored: Copy + Default + Send + Sync {
    /// What is computed with.
    type Real: Real;
    fn of(x: Self::Real) -> Self;
    fn real(self) -> Self::Real;
}

impl<T: Real> Stored for T {
    type Real = T;
    #[inline(always)]
    fn of(x: T) -> Self {
        x
    }
    #[inline(always)]
    fn real(self) -> T {
        self
    }
}

impl Stored for bf16 {
    type Real = f32;
    #[inline(always)]
    fn of(x: f32) -> Self {
        Self::from_f32(x)
    }
    // Not `to_f32`, which looks for NaN: this is one shift.
    #[inline(always)]
    fn real(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Some tokens' keys and values.
#[derive(Debug)]
pub struct Chunk<E> {
    /// Its tokens.
    taken: usize,
    /// (kv_heads, head_dim, CHUNK).
    keys: Vec<E>,
    /// (kv_heads, CHUNK, head_dim).
    values: Vec<E>,
}

impl<E: Stored> Chunk<E> {
    fn new(kv_heads: usize, dim: usize) -> Self {
        let zeros = vec![E::default(); kv_heads * dim * CHUNK];
        Self {
            taken: 0,
            keys: zeros.clone(),
            values: zeros,
        }
    }

    /// Takes in a token, whose heads are `distances` apart in `key` and `value`.
    fn push(&mut self, key: &[E::Real], value: &[E::Real], dim: usize, distances: [usize; 2]) {
        let heads = self.values.chunks_exact_mut(CHUNK * dim);
        let heads = self.keys.chunks_exact_mut(dim * CHUNK).zip(heads);
        for (head, (keys, values)) in heads.enumerate() {
            let key = &key[head * distances[0]..][..dim];
            let value = &value[head * distances[1]..][..dim];
            for (column, &x) in keys.chunks_exact_mut(CHUNK).zip(key) {
                column[self.taken] = E::of(x);
            }
            let values = values[self.taken * dim..][..dim].iter_mut();
            values.zip(value).for_each(|(kept, &x)| *kept = E::of(x));
        }
        self.taken += 1;
    }
}

/// A prompt's chunks, for all sequences after it.
pub type Prefix<E> = Arc<Vec<Chunk<E>>>;

/// The chunks of `keys` and `values` (tokens, kv_heads, head_dim).
pub fn prefix<E: Stored>(keys: &Tensor, values: &Tensor) -> Result<Prefix<E>> {
    let (tokens, kv_heads, dim) = keys.dims3()?;
    let strides = [keys, values].map(|x| (x.stride()[0], x.stride()[1]));
    let (keys, values) = (read(keys), read(values));
    let (keys, values) = (keys.values::<E::Real>()?, values.values::<E::Real>()?);
    let chunk = |first: usize| {
        let mut chunk = Chunk::new(kv_heads, dim);
        for token in first..tokens.min(first + CHUNK) {
            let (key, value) = (
                &keys[token * strides[0].0..],
                &values[token * strides[1].0..],
            );
            chunk.push(key, value, dim, strides.map(|(_, head)| head));
        }
        chunk
    };
    let starts: Vec<usize> = (0..tokens).step_by(CHUNK).collect();
    Ok(Arc::new(starts.into_par_iter().map(chunk).collect()))
}

/// The keys and values of one sequence.
#[derive(Debug)]
pub struct Sequence<E> {
    prompt: Prefix<E>,
    own: Vec<Chunk<E>>,
}

impl<E> Default for Sequence<E> {
    fn default() -> Self {
        Self {
            prompt: Arc::default(),
            own: Vec::new(),
        }
    }
}

impl<E: Stored> Sequence<E> {
    pub fn begin(prompt: Prefix<E>) -> Self {
        Self {
            prompt,
            own: Vec::new(),
        }
    }

    fn push(
        &mut self,
        key: &[E::Real],
        value: &[E::Real],
        heads: (usize, usize),
        distances: [usize; 2],
    ) {
        if self.own.last().is_none_or(|chunk| chunk.taken == CHUNK) {
            self.own.push(Chunk::new(heads.0, heads.1));
        }
        let last = self.own.last_mut().expect("one was pushed");
        last.push(key, value, heads.1, distances);
    }

    /// What the newest token sees, of a head of keys: keys, values, and the tokens of the chunk.
    fn seen(&self, window: usize, head: usize, dim: usize) -> Vec<Seen<'_, E>> {
        let mut left = window;
        let mut seen = Vec::with_capacity(self.prompt.len() + self.own.len());
        for chunk in self.prompt.iter().chain(&self.own).rev() {
            if left == 0 {
                break;
            }
            let first = chunk.taken.saturating_sub(left);
            left -= chunk.taken - first;
            let size = dim * CHUNK;
            seen.push(Seen {
                keys: &chunk.keys[head * size..][..size],
                values: &chunk.values[head * size..][..size],
                next: chunk.keys.get((head + 1) * size..).unwrap_or_default(),
                first,
                last: chunk.taken,
            });
        }
        seen.reverse();
        seen
    }
}

/// One head of a chunk, and which of its tokens are seen.
struct Seen<'a, E> {
    keys: &'a [E],
    values: &'a [E],
    /// The keys of the heads after it.
    next: &'a [E],
    first: usize,
    last: usize,
}

/// As `KvCache::extend`, which checks.
pub fn extend<E: Stored>(
    sequences: &mut [Sequence<E>],
    places: &Places,
    [q, k, v]: [&Tensor; 3],
    scores: Scores,
) -> Result<Tensor> {
    let ((rows, heads, dim), kv_heads) = (q.dims3()?, k.dim(1)?);
    let strides = [q, k, v].map(|x| (x.stride()[0], x.stride()[1]));
    // SAFETY: all of it is written below.
    let mut y = unsafe { fresh((rows, heads, dim), q)? };
    let (q, k, v) = (read(q), read(k), read(v));
    let (q, k, v) = (q.values()?, k.values()?, v.values()?);
    let mut row_in = vec![None; sequences.len()];
    for (row, &slot) in places.slots.iter().enumerate() {
        row_in[slot] = Some(row);
    }
    let push = |(sequence, row): (&mut Sequence<E>, Option<usize>)| {
        if let Some(row) = row {
            let (key, value) = (&k[row * strides[1].0..], &v[row * strides[2].0..]);
            let distances = [strides[1].1, strides[2].1];
            sequence.push(key, value, (kv_heads, dim), distances);
        }
    };
    if rows * kv_heads * dim < SMALL / CHUNK {
        sequences.iter_mut().zip(row_in).for_each(push);
    } else {
        sequences.par_iter_mut().zip(row_in).for_each(push);
    }
    let group = heads / kv_heads;
    let scale = <E::Real as Real>::of(scores.scale);
    let softcap = scores.softcap.map(<E::Real as Real>::of);
    let window = scores.window.unwrap_or(usize::MAX);
    let attend_all = |at: usize, y: &mut [E::Real]| {
        let (row, head) = (at / kv_heads, at % kv_heads);
        let seen = sequences[places.slots[row]].seen(window, head, dim);
        let mut scores = vec![E::Real::ZERO; seen.len() * CHUNK];
        for (member, y) in y.chunks_exact_mut(dim).enumerate() {
            let q = &q[row * strides[0].0 + (head * group + member) * strides[0].1..][..dim];
            attend(q, &seen, scale, softcap, &mut scores, y);
        }
    };
    let tokens: usize = places.lengths.iter().sum();
    write((&mut y).into(), |y: &mut [E::Real]| {
        let parts = group * dim;
        if tokens * heads * dim < SMALL {
            y.chunks_exact_mut(parts)
                .enumerate()
                .for_each(|(at, y)| attend_all(at, y));
        } else {
            y.par_chunks_exact_mut(parts)
                .enumerate()
                .for_each(|(at, y)| attend_all(at, y));
        }
        Ok(())
    })?;
    Ok(y)
}

vectorized! {
    /// Attention of one query to what it sees; `scores` has room for all of it.
    fn attend<E: Stored>(
        q: &[E::Real],
        seen: &[Seen<E>],
        scale: E::Real,
        softcap: Option<E::Real>,
        scores: &mut [E::Real],
        y: &mut [E::Real],
    ) {
        // What is left to multiply sums by.
        let rest = if softcap.is_some() { E::Real::ONE } else { scale };
        let mut most = E::Real::NEG_INFINITY;
        for (at, scores) in scores.chunks_exact_mut(CHUNK).take(seen.len()).enumerate() {
            let (next, seen) = (seen.get(at + 1).map_or(seen[0].values, |next| next.keys), &seen[at]);
            let mut sums = [E::Real::ZERO; CHUNK];
            match seen.last {
                0..=16 => dot::<E, 16>(q, seen.keys, next, &mut sums),
                17..=32 => dot::<E, 32>(q, seen.keys, next, &mut sums),
                _ => dot::<E, CHUNK>(q, seen.keys, next, &mut sums),
            }
            if let Some(cap) = softcap {
                for sum in &mut sums {
                    *sum = capped(*sum, scale, cap);
                }
            }
            for (at, (score, sum)) in scores.iter_mut().zip(sums).enumerate() {
                let sees = at >= seen.first && at < seen.last;
                *score = if sees { sum * rest } else { E::Real::NEG_INFINITY };
            }
            let mut tops = [E::Real::NEG_INFINITY; LANES];
            for scores in scores.chunks_exact(LANES) {
                for (top, &score) in tops.iter_mut().zip(scores) {
                    *top = top.larger(score);
                }
            }
            most = tops.into_iter().fold(most, E::Real::larger);
        }
        let mut totals = [E::Real::ZERO; LANES];
        for scores in scores.chunks_exact_mut(LANES) {
            for (total, score) in totals.iter_mut().zip(scores) {
                *score = (*score - most).exp();
                *total += *score;
            }
        }
        let share = E::Real::ONE / totals.into_iter().sum::<E::Real>();
        let dim = q.len();
        let mut at = 0;
        while at < dim {
            at += match dim - at {
                CHUNK.. => mix::<E, CHUNK>(seen, scores, (at, dim), share, y),
                8.. => mix::<E, 8>(seen, scores, (at, dim), share, y),
                _ => mix::<E, 1>(seen, scores, (at, dim), share, y),
            };
        }
    }
}

/// Has the caches fetch what is read next: chunks lie apart, so that no CPU foresees it.
#[inline(always)]
fn ask_for<E>(row: &[E]) {
    for line in (0..size_of_val(row)).step_by(64) {
        fetch(row.as_ptr().cast::<u8>().wrapping_add(line));
    }
}

/// `q` with the first `N` keys of a chunk, of which no more are needed.
#[inline(always)]
fn dot<E: Stored, const N: usize>(
    q: &[E::Real],
    keys: &[E],
    next: &[E],
    sums: &mut [E::Real; CHUNK],
) {
    let mut kept = [E::Real::ZERO; N];
    let columns = keys.chunks_exact(CHUNK).zip(next.chunks_exact(CHUNK));
    for ((column, next), &x) in columns.zip(q) {
        ask_for(next);
        for (sum, &key) in kept.iter_mut().zip(column) {
            *sum += x * key.real();
        }
    }
    sums[..N].copy_from_slice(&kept);
}

/// The weighted sum of `N` elements of the values, from `at` of `dim` on; gives `N`.
#[inline(always)]
fn mix<E: Stored, const N: usize>(
    seen: &[Seen<E>],
    scores: &[E::Real],
    (at, dim): (usize, usize),
    share: E::Real,
    y: &mut [E::Real],
) -> usize {
    let mut sums = [E::Real::ZERO; N];
    for (chunk, scores) in scores.chunks_exact(CHUNK).take(seen.len()).enumerate() {
        let next = match seen.get(chunk + 1) {
            Some(next) => next.values,
            None if seen[0].next.is_empty() => seen[chunk].values,
            None => seen[0].next,
        };
        let seen = &seen[chunk];
        let values = seen
            .values
            .chunks_exact(dim)
            .zip(next.chunks_exact(dim))
            .zip(scores);
        for ((value, next), &score) in values.take(seen.last).skip(seen.first) {
            ask_for(&next[at..][..N]);
            for (sum, &value) in sums.iter_mut().zip(&value[at..][..N]) {
                *sum += score * value.real();
            }
        }
    }
    for (y, sum) in y[at..at + N].iter_mut().zip(sums) {
        *y = sum * share;
    }
    N
}
