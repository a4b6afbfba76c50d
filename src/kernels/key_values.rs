//! Attention of one new token per sequence over the keys and values of the tokens before it.
//!
//! Hides how sequences of different lengths share one tensor: they end together. Slot t is every
//! sequence's t-th from a common start, and a sequence shorter than the longest begins later.
//!
//! *Why*: so a new token takes the same slot in every sequence, and the mask is one number per
//! sequence.

use std::ops::Range;

use candle_core::{D, Tensor};

use crate::error::{Error, Result};

/// The keys and values of one block.
#[derive(Debug)]
pub struct KeyValues {
    kept: Kept,
    /// Each sequence's first slot.
    starts: Vec<usize>,
    /// Slots that are taken.
    used: usize,
    /// All slots.
    capacity: usize,
    window: Option<usize>,
}

/// Keys and values where they are.
#[derive(Debug)]
enum Kept {
    /// (sequences, kv_heads, capacity, head_dim).
    Host { keys: Tensor, values: Tensor },
    #[cfg(any(test, feature = "cuda"))]
    Gpu(super::gpu::key_values::Cache),
}

impl Kept {
    fn new(prompts: &[(Tensor, Tensor)], starts: &[usize], capacity: usize) -> Result<Self> {
        if prompts.is_empty() {
            return Err(Error::failed("keys and values of no sequence"));
        }
        on_gpu!(&prompts[0].0 => {
            super::gpu::key_values::Cache::new(prompts, starts, capacity).map(Self::Gpu)
        });
        let together = |part: fn(&(Tensor, Tensor)) -> &Tensor| -> Result<Tensor> {
            let rows = prompts.iter().zip(starts).map(|(prompt, &start)| {
                let x = part(prompt).transpose(0, 1)?;
                let room = (capacity - start).saturating_sub(x.dim(1)?);
                x.pad_with_zeros(1, start, room)
            });
            let rows: Vec<Tensor> = rows.collect::<candle_core::Result<_>>()?;
            Ok(Tensor::stack(&rows, 0)?.contiguous()?)
        };
        Ok(Self::Host {
            keys: together(|prompt| &prompt.0)?,
            values: together(|prompt| &prompt.1)?,
        })
    }
}

impl KeyValues {
    /// From the keys and values of each sequence's tokens, (tokens, kv_heads, head_dim), with
    /// `room` for more tokens. With a window a token sees itself and the `window - 1` before it.
    ///
    /// # Errors
    /// If there is no sequence, or shapes or dtypes differ.
    pub fn new(prompts: &[(Tensor, Tensor)], room: usize, window: Option<usize>) -> Result<Self> {
        let lengths = prompts.iter().map(|(keys, _)| keys.dim(0));
        let lengths: Vec<usize> = lengths.collect::<candle_core::Result<_>>()?;
        let used = lengths.iter().copied().max().unwrap_or(0);
        let starts: Vec<usize> = lengths.iter().map(|length| used - length).collect();
        let capacity = used + room;
        Ok(Self {
            kept: Kept::new(prompts, &starts, capacity)?,
            starts,
            used,
            capacity,
            window,
        })
    }

    /// Keeps these sequences only, in this order.
    ///
    /// # Errors
    /// If there is no such sequence.
    pub fn keep(&mut self, sequences: &[usize]) -> Result<()> {
        let count = self.starts.len();
        if let Some(sequence) = sequences.iter().find(|&&sequence| sequence >= count) {
            return Err(Error::failed(format!("sequence {sequence} of {count}")));
        }
        let starts: Vec<usize> = sequences.iter().map(|&row| self.starts[row]).collect();
        match &mut self.kept {
            Kept::Host { keys, values } => {
                let index: Vec<u32> = sequences.iter().map(|&row| row as u32).collect();
                let index = Tensor::new(index, keys.device())?;
                *keys = keys.index_select(&index, 0)?;
                *values = values.index_select(&index, 0)?;
            }
            #[cfg(any(test, feature = "cuda"))]
            Kept::Gpu(cache) => cache.keep(sequences, &starts, self.used)?,
        }
        self.starts = starts;
        Ok(())
    }

    /// Takes in one token per sequence and attends: `q` (sequences, heads, head_dim), `k` and `v`
    /// (sequences, kv_heads, head_dim) -> (sequences, heads, head_dim).
    ///
    /// # Errors
    /// If there is no room left, or shapes do not fit.
    pub fn extend(&mut self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        if self.used == self.capacity {
            return Err(Error::failed("no room for another token"));
        }
        let seen = (self.used + 1).saturating_sub(self.window.unwrap_or(usize::MAX))..self.used + 1;
        let y = match &mut self.kept {
            Kept::Host { keys, values } => {
                let mask = mask(&self.starts, &seen, q)?;
                attend([q, k, v], [keys, values], &mask, self.used)?
            }
            #[cfg(any(test, feature = "cuda"))]
            Kept::Gpu(cache) => cache.extend([q, k, v], &seen)?,
        };
        self.used += 1;
        Ok(y)
    }
}

/// Attends to all slots up to `newest`, where `k` and `v` go.
fn attend(
    [q, k, v]: [&Tensor; 3],
    kept: [&Tensor; 2],
    mask: &Tensor,
    newest: usize,
) -> Result<Tensor> {
    for (x, kept) in [k, v].into_iter().zip(kept) {
        kept.slice_set(&x.unsqueeze(2)?.contiguous()?, 2, newest)?;
    }
    let [keys, values] = kept.map(|kept| kept.narrow(2, 0, newest + 1));
    let (keys, values) = (keys?, values?);
    let (sequences, heads, dim) = q.dims3()?;
    let kv_heads = keys.dim(1)?;
    let grouped = q.reshape((sequences, kv_heads, heads / kv_heads, dim))?;
    let scores = (grouped.matmul(&keys.t()?)? * (1.0 / (dim as f64).sqrt()))?;
    let scores = scores.broadcast_add(mask)?;
    let weights = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
        .exp()?;
    let p = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    Ok(p.matmul(&values)?.reshape((sequences, heads, dim))?)
}

/// (sequences, 1, 1, slots): 0 where the newest token sees a slot, of those in `seen` that are its
/// sequence's own, -inf where not.
fn mask(starts: &[usize], seen: &Range<usize>, like: &Tensor) -> Result<Tensor> {
    let visible = |start: usize, slot: usize| match slot >= start.max(seen.start) {
        true => 0.0,
        false => f32::NEG_INFINITY,
    };
    let mask: Vec<f32> = starts
        .iter()
        .flat_map(|&start| (0..seen.end).map(move |slot| visible(start, slot)))
        .collect();
    let shape = (starts.len(), 1, 1, seen.end);
    Ok(Tensor::from_vec(mask, shape, like.device())?.to_dtype(like.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::attention::{Packing, Segment, attention};
    use crate::kernels::testing::*;

    /// Token by token gives what all tokens at once give, whatever shares the batch.
    #[test]
    fn extending_equals_attention_over_the_whole() {
        for window in [None, Some(1), Some(3)] {
            compare(window);
        }
    }

    fn compare(window: Option<usize>) {
        let (heads, kv_heads, dim, total) = (4, 2, 5, 7);
        let lengths = [4, 1, 3];
        let x = |seed, heads| variable(seed, &[total, heads, dim]).as_tensor().clone();
        let all: Vec<[Tensor; 3]> = (0..3)
            .map(|s| {
                [
                    x(3 * s, heads),
                    x(3 * s + 1, kv_heads),
                    x(3 * s + 2, kv_heads),
                ]
            })
            .collect();
        let whole = |[q, k, v]: &[Tensor; 3], tokens: usize| {
            let part = |x: &Tensor| x.narrow(0, 0, tokens).unwrap();
            let own = vec![Segment::new(0..0, 0..tokens)];
            let packing = Packing::new(own, q.device()).unwrap();
            let y = attention(&part(q), &part(k), &part(v), &packing, window)
                .unwrap()
                .0;
            y.narrow(0, tokens - 1, 1).unwrap()
        };
        let prompts: Vec<_> = all
            .iter()
            .zip(lengths)
            .map(|([_, k, v], n)| (k.narrow(0, 0, n).unwrap(), v.narrow(0, 0, n).unwrap()))
            .collect();
        let mut cache = KeyValues::new(&prompts, 3, window).unwrap();
        let mut rows = vec![0, 1, 2];
        for step in 0..3 {
            if step == 2 {
                cache.keep(&[2, 0]).unwrap();
                rows = vec![2, 0];
            }
            let next = |part: usize| {
                let token = |&s: &usize| all[s][part].narrow(0, lengths[s] + step, 1).unwrap();
                Tensor::cat(&rows.iter().map(token).collect::<Vec<_>>(), 0).unwrap()
            };
            let got = cache.extend(&next(0), &next(1), &next(2)).unwrap();
            for (row, &s) in rows.iter().enumerate() {
                let want = whole(&all[s], lengths[s] + step + 1);
                assert_close(&got.narrow(0, row, 1).unwrap(), &want, "attended");
            }
        }
        let none = Tensor::zeros(
            (2, kv_heads, dim),
            prompts[0].0.dtype(),
            prompts[0].0.device(),
        );
        let none = none.unwrap();
        let q = Tensor::zeros((2, heads, dim), none.dtype(), none.device()).unwrap();
        assert!(cache.extend(&q, &none, &none).is_err(), "no room is left");
    }
}
