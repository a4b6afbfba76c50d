//! Kept keys and values in a GPU's memory, and attention of new tokens over them.
//!
//! *Why*: a new token reads every key and value before it once and does little else, so a block takes
//! all queries of a head of keys, and rows are so long that every load is a wide one.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::launch::{Arg, Grid, Module, PACK, Source, check_types, source, type_name};
use crate::error::{Error, Result};
use crate::kernels::cpu::fresh;

static TEXT: Source = source!("key_values");

/// Four warps, each with sums of its own.
const THREADS: usize = 128;

/// The widest heads: a row is taken by a warp at most.
const WIDEST: usize = 32 * PACK;

/// Query heads whose sums fit the registers.
const MOST_HEADS: usize = 8;

/// Blocks that share the copy of one head's slots.
const COPIES: usize = 4;

/// The keys and values of one block.
#[derive(Debug)]
pub struct Cache {
    /// (sequences, kv_heads, capacity, width): rows of heads with zeros up to a multiple of `PACK`.
    keys: Tensor,
    values: Tensor,
    /// (sequences), u32: each sequence's first slot.
    starts: Tensor,
    dim: usize,
}

impl Cache {
    /// Of the keys and values of each sequence's tokens, (tokens, kv_heads, head_dim), from the slots
    /// `starts` on.
    pub fn new(prompts: &[(Tensor, Tensor)], starts: &[usize], capacity: usize) -> Result<Self> {
        let like = &prompts[0].0;
        let (_, kv_heads, dim) = like.dims3()?;
        let shape = (
            prompts.len(),
            kv_heads,
            capacity,
            dim.next_multiple_of(PACK),
        );
        // SAFETY: a slot is written, below or by `extend`, before it is read.
        let (keys, values) = unsafe { (fresh(shape, like)?, fresh(shape, like)?) };
        let cache = Self {
            keys,
            values,
            starts: slots(starts, like)?,
            dim,
        };
        let module = cache.module(1)?;
        for (sequence, ((keys, values), first)) in prompts.iter().zip(starts).enumerate() {
            let tokens = keys.dim(0)?;
            let [keys_at, values_at] = [
                cache.strides(keys, [tokens, kv_heads])?,
                cache.strides(values, [tokens, kv_heads])?,
            ];
            if first + tokens > capacity {
                return Err(Error::failed(format!(
                    "{tokens} tokens from slot {first} of {capacity}"
                )));
            }
            let operands = [keys, values, &cache.keys, &cache.values].map(Into::into);
            let place = [tokens, kv_heads, dim, capacity, sequence, *first];
            let numbers = [&place[..], &keys_at, &values_at].concat();
            let numbers: Vec<Arg> = numbers.into_iter().map(Arg::Int).collect();
            let args = [&operands[..], &numbers].concat();
            module.launch("begin", Grid::warps(tokens * kv_heads), &args)?;
        }
        Ok(cache)
    }

    /// These sequences only, in this order, whose first slots are `starts`, of slots up to `used`. In
    /// other memory: in its own, one sequence would be written where another is still read.
    pub fn keep(&mut self, sequences: &[usize], starts: &[usize], used: usize) -> Result<()> {
        let (_, kv_heads, capacity, width) = self.keys.dims4()?;
        let shape = (sequences.len(), kv_heads, capacity, width);
        // SAFETY: a slot is written, below or by `extend`, before it is read.
        let (keys, values) = unsafe { (fresh(shape, &self.keys)?, fresh(shape, &self.keys)?) };
        let (rows, starts) = (slots(sequences, &keys)?, slots(starts, &keys)?);
        let tensors = [&self.keys, &self.values, &rows, &starts, &keys, &values].map(Into::into);
        let numbers = [kv_heads, capacity, used].map(Arg::Int);
        let args = [&tensors[..], &numbers].concat();
        let grid = Grid::new([sequences.len() * kv_heads, COPIES, 1], 2 * THREADS, 0);
        self.module(1)?.launch("gather", grid, &args)?;
        (self.keys, self.values, self.starts) = (keys, values, starts);
        Ok(())
    }

    /// Keeps a token's `k` and `v` of each sequence in the last of the slots `seen`, and attends with
    /// its `q` to those of them that are its sequence's own.
    pub fn extend(&mut self, [q, k, v]: [&Tensor; 3], seen: &Range<usize>) -> Result<Tensor> {
        let (sequences, kv_heads, capacity, width) = self.keys.dims4()?;
        let heads = q.dim(1)?;
        if seen.is_empty() || seen.end > capacity || heads % kv_heads != 0 {
            return Err(Error::failed(format!(
                "slots {seen:?} of {capacity}, {heads} heads of {kv_heads}"
            )));
        }
        let strides = [
            self.strides(q, [sequences, heads])?,
            self.strides(k, [sequences, kv_heads])?,
            self.strides(v, [sequences, kv_heads])?,
        ];
        // SAFETY: all of it is written below.
        let y = unsafe { fresh((sequences, heads, self.dim), q)? };
        let tensors = [q, k, v, &self.keys, &self.values, &self.starts, &y].map(Into::into);
        let place = [kv_heads, self.dim, capacity, seen.end - 1, seen.start];
        let numbers = [&place[..], strides.as_flattened()].concat();
        let numbers: Vec<Arg> = numbers.into_iter().map(Arg::Int).collect();
        let scale = Arg::Float(1.0 / (self.dim as f64).sqrt());
        let args = [&tensors[..], &numbers, &[scale]].concat();
        let group = heads / kv_heads;
        let teams = THREADS / lanes(width);
        // A team's sums, the largest of its scores and the sum of their exponentials.
        let shared = heads_at_once(group) * teams * (width + 2) * 4;
        let grid = Grid::new([sequences * kv_heads, 1, 1], THREADS, shared);
        self.module(group)?.launch("extend", grid, &args)?;
        Ok(y)
    }

    fn module(&self, group: usize) -> Result<Module<'static>> {
        module(self.keys.dtype(), self.dim, group)
    }

    /// The distances of tokens and heads of `x` (tokens, heads, head_dim).
    fn strides(&self, x: &Tensor, [tokens, heads]: [usize; 2]) -> Result<[usize; 2]> {
        check_types("kept keys and values", self.keys.dtype(), &[x])?;
        let strides = x.stride();
        if x.dims() != [tokens, heads, self.dim] || (self.dim > 1 && strides[2] != 1) {
            return Err(Error::failed(format!(
                "{:?} with strides {strides:?} for {tokens} tokens, {heads} heads of {}",
                x.dims(),
                self.dim
            )));
        }
        Ok([strides[0], strides[1]])
    }
}

/// For heads of `dim`, `group` of queries to each of keys.
fn module(dtype: DType, dim: usize, group: usize) -> Result<Module<'static>> {
    if dim > WIDEST {
        return Err(Error::failed(format!(
            "heads of {dim} on a GPU; valid: up to {WIDEST}"
        )));
    }
    let (width, heads) = (dim.next_multiple_of(PACK), heads_at_once(group));
    let slots = if dtype == DType::F32 && heads > MOST_HEADS / 2 {
        2
    } else {
        4
    };
    let numbers = [
        ("WIDTH", width),
        ("GROUP", group),
        ("HEADS", heads),
        ("LANES", lanes(width)),
        ("SLOTS", slots),
    ];
    let numbers = numbers.map(|(name, number)| (name, number.to_string()));
    TEXT.with([("A", type_name(dtype)?)].into_iter().chain(numbers))
}

/// What [`super::cards`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::cards::List {
    let sizes = [(64, 1), (128, 4), (80, 7), (128, 8), (256, 8), (5, 11)];
    let sizes = sizes.into_iter();
    let all = sizes.flat_map(|size| [DType::F32, DType::BF16].map(|dtype| (dtype, size)));
    all.map(|(dtype, (dim, group))| Ok((module(dtype, dim, group)?, 2 * THREADS)))
        .collect()
}

/// Threads of a row: a power of two, so that a warp is a whole number of rows.
fn lanes(width: usize) -> usize {
    (width / PACK).next_power_of_two()
}

/// The largest number of heads at once that divides a group.
fn heads_at_once(group: usize) -> usize {
    let divides = |&heads: &usize| group.is_multiple_of(heads);
    (1..=MOST_HEADS).rev().find(divides).unwrap_or(1)
}

fn slots(numbers: &[usize], like: &Tensor) -> Result<Tensor> {
    let numbers: Vec<u32> = numbers.iter().map(|&n| n as u32).collect();
    Ok(Tensor::new(numbers, like.device())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gpu::twin::{compare, scope};
    use crate::kernels::key_values::KeyValues;
    use crate::kernels::testing::variable;

    /// Heads, heads of keys, their size.
    type Shape = (usize, usize, usize);

    /// Queries, keys and values as parts of one tensor, one after the other or, with as many heads of
    /// keys, head by head.
    fn parts(whole: &Tensor, (heads, kv_heads, dim): Shape) -> [Tensor; 3] {
        if heads == kv_heads {
            let whole = whole.reshape(((), heads, 3, dim)).unwrap();
            return [0, 1, 2].map(|i| whole.narrow(2, i, 1).unwrap().squeeze(2).unwrap());
        }
        let whole = whole.reshape(((), heads + 2 * kv_heads, dim)).unwrap();
        let part = |start, count| whole.narrow(1, start, count).unwrap();
        [
            part(0, heads),
            part(heads, kv_heads),
            part(heads + kv_heads, kv_heads),
        ]
    }

    /// Three tokens after prompts of these lengths; after each but the last some sequences leave.
    fn run(
        inputs: &[Tensor],
        lengths: &[usize],
        shape: Shape,
        window: Option<usize>,
    ) -> Vec<Tensor> {
        let [_, k, v] = parts(&inputs[0], shape);
        let mut start = 0;
        let prompts: Vec<(Tensor, Tensor)> = lengths
            .iter()
            .map(|&length| {
                start += length;
                let part = |x: &Tensor| x.narrow(0, start - length, length).unwrap();
                (part(&k), part(&v))
            })
            .collect();
        let mut cache = KeyValues::new(&prompts, 3, window).unwrap();
        let mut rows = lengths.len();
        let mut outputs = Vec::new();
        for step in 0..3 {
            let token = inputs[1].narrow(0, step * lengths.len() + 1, rows).unwrap();
            let [q, k, v] = parts(&token, shape);
            outputs.push(cache.extend(&q, &k, &v).unwrap());
            // Without the first sequence, then from the last to the second.
            let kept: Vec<usize> = match step {
                0 => (1..rows).collect(),
                1 => (1..rows).rev().collect(),
                _ => break,
            };
            let kept = if kept.is_empty() { vec![0] } else { kept };
            cache.keep(&kept).unwrap();
            rows = kept.len();
        }
        outputs
    }

    fn check(lengths: &[usize], shape: Shape, window: Option<usize>) {
        let width = (shape.0 + 2 * shape.1) * shape.2;
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::BF16, 8e-3)] {
            let random = |seed, rows| variable(seed, &[rows, width]).to_dtype(dtype).unwrap();
            let inputs = [
                random(1, lengths.iter().sum()),
                random(2, 3 * lengths.len() + 1),
            ];
            let what = format!("{lengths:?}, {shape:?}, window {window:?}, {dtype:?}");
            compare(&what, &inputs, tolerance, |inputs| {
                run(inputs, lengths, shape, window)
            });
        }
    }

    #[test]
    fn tokens_attend_as_on_the_processor() {
        let short: [&[usize]; 3] = [&[1], &[4, 1, 7], &[33, 2, 5, 33]];
        for shape in [(2, 2, 5), (4, 2, 16), (4, 1, 5)] {
            for lengths in short {
                for window in [None, Some(1), Some(3), Some(20)] {
                    check(lengths, shape, window);
                }
            }
        }
        check(&[129, 3, 70], (4, 4, 64), None);
        check(&[70, 129], (8, 2, 80), Some(65));
        check(&[40, 200, 9], (8, 1, 128), None);
        check(&[5, 40], (4, 2, 128), Some(7));
    }

    #[test]
    fn groups_of_any_size_share_their_keys() {
        for group in [3, 7, 11, 16] {
            check(&[5, 70, 1], (2 * group, 2, 8), Some(66));
        }
        check(&[9, 3], (1, 1, 256), None);
    }

    /// Scores far apart, of which one alone weighs, wherever its slot is.
    #[test]
    fn the_largest_score_takes_all() {
        let (tokens, dim) = (100, 8);
        for best in [0, 1, 50, 99, 100] {
            let key = |t: usize| if t == best { 1e4 } else { -1e4 };
            let rows = |f: &dyn Fn(usize) -> f32, n: usize, first: usize| {
                let rows: Vec<f32> = (0..n * dim).map(|i| f(first + i / dim)).collect();
                Tensor::from_vec(rows, (n, 1, dim), &candle_core::Device::Cpu).unwrap()
            };
            let value = |t: usize| t as f32;
            let attended = scope(|| {
                let prompt = (rows(&key, tokens, 0), rows(&value, tokens, 0));
                let mut cache = KeyValues::new(&[prompt], 1, None).unwrap();
                let (k, v) = (rows(&key, 1, tokens), rows(&value, 1, tokens));
                cache.extend(&rows(&|_| 3.0, 1, 0), &k, &v).unwrap()
            });
            let Some(attended) = attended else { return };
            let attended: Vec<f32> = attended.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(attended, [best as f32; 8]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let x =
            |tokens, heads, dim, dtype| variable(1, &[tokens, heads, dim]).to_dtype(dtype).unwrap();
        let new = |keys: Tensor, values: Tensor| KeyValues::new(&[(keys, values)], 1, None);
        let (f32, bf16) = (DType::F32, DType::BF16);
        scope(|| {
            assert!(new(x(2, 2, 5, f32), x(2, 2, 5, bf16)).is_err());
            assert!(new(x(2, 2, 5, f32), x(1, 2, 5, f32)).is_err());
            let said = new(x(2, 1, 257, f32), x(2, 1, 257, f32)).unwrap_err();
            assert!(said.to_string().contains("up to 256"), "{said}");
            let said = new(x(2, 1, 4, DType::F64), x(2, 1, 4, DType::F64)).unwrap_err();
            assert!(said.to_string().contains("f32 or bf16"), "{said}");
            let mut cache = new(x(2, 2, 5, f32), x(2, 2, 5, f32)).unwrap();
            let token = |heads| x(1, heads, 5, f32);
            assert!(cache.keep(&[1]).is_err());
            assert!(cache.extend(&token(3), &token(2), &token(2)).is_err());
            assert!(cache.extend(&token(4), &token(1), &token(2)).is_err());
            assert!(cache.extend(&token(4), &token(2), &token(2)).is_ok());
            let said = cache.extend(&token(4), &token(2), &token(2)).unwrap_err();
            assert!(said.to_string().contains("no room"), "{said}");
        });
    }
}
