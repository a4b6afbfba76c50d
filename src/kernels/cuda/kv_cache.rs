//! The KV cache in a GPU's memory, and attention of new tokens over it.
//!
//! *Why*: a new token reads every key and value before it once and does little else, so a block takes
//! all queries of a head of keys, and rows are so long that every load is a wide one.

use candle_core::{DType, Device, Tensor};

use super::module::{Arg, Grid, Module, PACK, Source, check_types, source, type_name};
use crate::error::{Error, Result};
use crate::kernels::operands::attention::Scores;
use crate::kernels::operands::kv_cache::{Places, Shape};
use crate::kernels::tensor::{fresh, fresh_on};

static TEXT: Source = source!("kv_cache");

/// Four warps, each with sums of its own.
const THREADS: usize = 128;

/// The widest heads: a row is taken by a warp at most.
const WIDEST: usize = 32 * PACK;

/// Query heads whose sums fit the registers.
const MOST_HEADS: usize = 8;

/// The keys and values of one block.
#[derive(Debug)]
pub struct Cache {
    /// (slots, kv_heads, capacity, width): rows of heads with zeros up to a multiple of `PACK`.
    keys: Tensor,
    values: Tensor,
    dim: usize,
}

impl Cache {
    /// Slots without a sequence.
    pub fn new(shape: &Shape, dtype: DType, device: &Device) -> Result<Self> {
        let width = shape.head_dim.next_multiple_of(PACK);
        let dims = (shape.slots, shape.kv_heads, shape.capacity, width);
        // SAFETY: a token's row is written, by `begin` or `extend`, before it is read.
        let fresh = || unsafe { fresh_on(dims, dtype, device) };
        let cache = Self {
            keys: fresh()?,
            values: fresh()?,
            dim: shape.head_dim,
        };
        cache.module(1, false)?;
        Ok(cache)
    }

    /// Begins a sequence with the keys and values of a prompt's tokens, (tokens, kv_heads, head_dim)
    /// each.
    pub fn begin(&mut self, slot: usize, [keys, values]: &[Tensor; 2]) -> Result<()> {
        let (_, kv_heads, capacity, _) = self.keys.dims4()?;
        let tokens = keys.dim(0)?;
        let [keys_at, values_at] = [
            self.strides(keys, [tokens, kv_heads])?,
            self.strides(values, [tokens, kv_heads])?,
        ];
        let operands = [keys, values, &self.keys, &self.values].map(Into::into);
        let place = [tokens, kv_heads, self.dim, capacity, slot];
        let numbers = [&place[..], &keys_at, &values_at].concat();
        let numbers: Vec<Arg> = numbers.into_iter().map(Arg::Int).collect();
        let args = [&operands[..], &numbers].concat();
        let grid = Grid::warps(tokens * kv_heads);
        self.module(1, false)?.launch("begin", grid, &args)
    }

    /// As `KvCache::extend`, which checks.
    pub fn extend(
        &mut self,
        places: &Places,
        [q, k, v]: [&Tensor; 3],
        scores: Scores,
    ) -> Result<Tensor> {
        let (_, kv_heads, capacity, width) = self.keys.dims4()?;
        let (rows, heads, _) = q.dims3()?;
        let strides = [
            self.strides(q, [rows, heads])?,
            self.strides(k, [rows, kv_heads])?,
            self.strides(v, [rows, kv_heads])?,
        ];
        // SAFETY: all of it is written below.
        let y = unsafe { fresh((rows, heads, self.dim), q)? };
        let tensors = [q, k, v, &self.keys, &self.values, places.on_gpu()?, &y].map(Into::into);
        let place = [
            kv_heads,
            self.dim,
            capacity,
            scores.window.unwrap_or(capacity),
        ];
        let numbers = [&place[..], strides.as_flattened()].concat();
        let numbers: Vec<Arg> = numbers.into_iter().map(Arg::Int).collect();
        let floats = [scores.scale, scores.softcap.unwrap_or_default()].map(Arg::Float);
        let args = [&tensors[..], &numbers, &floats].concat();
        let group = heads / kv_heads;
        let teams = THREADS / lanes(width);
        // A team's sums, the largest of its scores and the sum of their exponentials.
        let shared = heads_at_once(group) * teams * (width + 2) * 4;
        let grid = Grid::new([rows * kv_heads, 1, 1], THREADS, shared);
        let module = self.module(group, scores.softcap.is_some())?;
        module.launch("extend", grid, &args)?;
        Ok(y)
    }

    fn module(&self, group: usize, capped: bool) -> Result<Module> {
        module(self.keys.dtype(), self.dim, group, capped)
    }

    /// The distances of tokens and heads of `x` (tokens, heads, head_dim).
    fn strides(&self, x: &Tensor, [tokens, heads]: [usize; 2]) -> Result<[usize; 2]> {
        check_types("cached keys and values", self.keys.dtype(), &[x])?;
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

/// For heads of `dim`, `group` of queries to each of keys, and scores with a soft cap or without.
fn module(dtype: DType, dim: usize, group: usize, capped: bool) -> Result<Module> {
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
        ("CAPPED", usize::from(capped)),
    ];
    let numbers = numbers.map(|(name, number)| (name, number.into()));
    TEXT.with([("A", type_name(dtype)?)].into_iter().chain(numbers))
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    let sizes = [(64, 1), (128, 4), (80, 7), (128, 8), (256, 8), (5, 11)];
    let capped = [(5, 2), (128, 2), (256, 2)];
    Ok([modules_of(&sizes, false)?, modules_of(&capped, true)?].concat())
}

/// For heads of these sizes, and so many of queries to each of keys.
#[cfg(test)]
pub(super) fn modules_of(sizes: &[(usize, usize)], capped: bool) -> super::module::Listed {
    let sizes = sizes.iter();
    let all = sizes.flat_map(|&size| [DType::F32, DType::BF16].map(|dtype| (dtype, size)));
    all.map(|(dtype, (dim, group))| Ok((module(dtype, dim, group, capped)?, 2 * THREADS)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Precision;
    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::device::from_host;
    use crate::kernels::emulator::{compare, device, scope_on};
    use crate::kernels::kv_cache::{KvCache, Prefix};
    use crate::kernels::testing::{here, on, scores, variable};

    const FULL: Precision = Precision::Full;

    /// Heads, heads of keys, their size.
    type Heads = (usize, usize, usize);

    /// Queries, keys and values as parts of one tensor, one after the other or, with as many heads of
    /// keys, head by head.
    fn parts(whole: &Tensor, (heads, kv_heads, dim): Heads) -> [Tensor; 3] {
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

    /// Three tokens after prompts of these lengths, in slots from the last to the first; after the
    /// first a sequence leaves, and after the second another takes its place.
    fn run(inputs: &[Tensor], lengths: &[usize], shape: Heads, how: Scores) -> Vec<Tensor> {
        let [_, k, v] = parts(&inputs[0], shape);
        let like = &inputs[0];
        let prompt = |s: usize| {
            let start: usize = lengths[..s].iter().sum();
            let part = |x: &Tensor| x.narrow(0, start, lengths[s]).unwrap();
            Prefix::new(&part(&k), &part(&v), FULL).unwrap()
        };
        let slots = lengths.len();
        let whole = Shape {
            slots,
            capacity: lengths.iter().max().unwrap() + 3,
            kv_heads: shape.1,
            head_dim: shape.2,
            scores: how,
        };
        let mut cache = KvCache::new(whole, like.dtype(), FULL, like.device()).unwrap();
        // Each row's slot and tokens.
        let mut rows: Vec<(usize, usize)> = (0..slots).rev().map(|s| (s, lengths[s])).collect();
        for s in 0..slots {
            cache.begin(s, &prompt(s)).unwrap();
        }
        let mut outputs = Vec::new();
        for step in 0..3 {
            let token = inputs[1].narrow(0, step * slots + 1, rows.len()).unwrap();
            let [q, k, v] = parts(&token, shape);
            let (at, lengths_now): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
            let places = Places::new(&at, &lengths_now, like.device()).unwrap();
            outputs.push(cache.extend(&places, &q, &k, &v).unwrap());
            rows.iter_mut().for_each(|(_, n)| *n += 1);
            if step == 0 && slots > 1 {
                cache.end(rows.remove(0).0);
            } else if step == 1 && slots > 1 {
                cache.begin(slots - 1, &prompt(0)).unwrap();
                rows.push((slots - 1, lengths[0]));
            }
        }
        outputs
    }

    fn check(lengths: &[usize], shape: Heads, window: Option<usize>) {
        check_scores(lengths, shape, scores(shape.2, window));
    }

    /// With a cap at which many scores of the tests are bent.
    fn capped(dim: usize, window: Option<usize>) -> Scores {
        Scores {
            softcap: Some(0.7),
            ..scores(dim, window)
        }
    }

    fn check_scores(lengths: &[usize], shape: Heads, how: Scores) {
        let width = (shape.0 + 2 * shape.1) * shape.2;
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::BF16, 8e-3)] {
            let random = |seed, rows| variable(seed, &[rows, width]).to_dtype(dtype).unwrap();
            let inputs = [
                random(1, lengths.iter().sum()),
                random(2, 3 * lengths.len() + 1),
            ];
            let what = format!("{lengths:?}, {shape:?}, {how:?}, {dtype:?}");
            compare(&what, &inputs, tolerance, |inputs| {
                run(inputs, lengths, shape, how)
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
        check_scores(&[33, 2, 70], (4, 2, 5), capped(5, Some(20)));
        check_scores(&[70, 9], (4, 2, 256), capped(256, None));
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || {
            check(&[70, 4], (2, 2, 64), Some(65));
            check(&[33, 1, 9], (7, 1, 80), None);
            check(&[5, 40], (22, 2, 5), Some(7));
            check_scores(&[33, 9], (4, 2, 128), capped(128, Some(20)));
        });
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
        let Some(device) = device() else { return };
        for best in [0, 1, 50, 99, 100] {
            let key = |t: usize| if t == best { 1e4 } else { -1e4 };
            let rows = |f: &dyn Fn(usize) -> f32, n: usize, first: usize| {
                let rows: Vec<f32> = (0..n * dim).map(|i| f(first + i / dim)).collect();
                from_host(&rows, (n, 1, dim), &device).unwrap()
            };
            let value = |t: usize| t as f32;
            let attended = scope_on(&device, || {
                let prompt = Prefix::new(&rows(&key, tokens, 0), &rows(&value, tokens, 0), FULL);
                let mut cache = new([1, tokens + 1, 1, dim], DType::F32, &device).unwrap();
                cache.begin(0, &prompt.unwrap()).unwrap();
                let (k, v) = (rows(&key, 1, tokens), rows(&value, 1, tokens));
                let places = Places::new(&[0], &[tokens], k.device()).unwrap();
                cache
                    .extend(&places, &rows(&|_| 3.0, 1, 0), &k, &v)
                    .unwrap()
            });
            let attended = here(&attended).flatten_all().unwrap();
            let attended: Vec<f32> = attended.to_vec1().unwrap();
            assert_eq!(attended, [best as f32; 8]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let Some(device) = device() else { return };
        let x = |tokens, heads, dim, dtype| {
            let x = variable(1, &[tokens, heads, dim]).to_dtype(dtype);
            on(&device, &x.unwrap())
        };
        let f32 = DType::F32;
        let new = |dims, dtype| new(dims, dtype, &device);
        scope_on(&device, || {
            let said = new([1, 3, 1, 257], f32).unwrap_err();
            assert!(said.to_string().contains("up to 256"), "{said}");
            let said = new([1, 3, 1, 4], DType::F64).unwrap_err();
            assert!(said.to_string().contains("f32 or bf16"), "{said}");
            let mut cache = new([1, 3, 2, 5], f32).unwrap();
            let other =
                Prefix::new(&x(2, 2, 5, DType::BF16), &x(2, 2, 5, DType::BF16), FULL).unwrap();
            assert!(cache.begin(0, &other).is_err());
            let prompt = Prefix::new(&x(2, 2, 5, f32), &x(2, 2, 5, f32), FULL).unwrap();
            cache.begin(0, &prompt).unwrap();
            let token = |heads| x(1, heads, 5, f32);
            let mut extend = |length, heads, kv_heads| {
                let places = Places::new(&[0], &[length], &device).unwrap();
                cache.extend(&places, &token(heads), &token(kv_heads), &token(2))
            };
            assert!(extend(2, 3, 2).is_err());
            assert!(extend(2, 4, 1).is_err());
            assert!(extend(2, 4, 2).is_ok());
            let said = extend(3, 4, 2).unwrap_err();
            assert!(said.to_string().contains("no room"), "{said}");
        });
    }

    fn new(
        [slots, capacity, kv_heads, head_dim]: [usize; 4],
        dtype: DType,
        device: &Device,
    ) -> Result<KvCache> {
        let shape = Shape {
            slots,
            capacity,
            kv_heads,
            head_dim,
            scores: scores(head_dim, None),
        };
        KvCache::new(shape, dtype, FULL, device)
    }
}
