//! The KV cache, and attention of one new token per sequence over the keys and values of the tokens
//! before it.
//!
//! Hides where they lie. A sequence has a slot, and when it has ended another one takes it; a
//! prompt's are computed once and given to every sequence that begins with it.
//!
//! *Why*: sequences begin and end at different times, so nothing that one takes, place or sum, may
//! depend on another.

use candle_core::{DType, Device, Tensor};
use half::bf16;

pub use crate::kernels::operands::kv_cache::{Places, Shape};

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::cpu::host::no_kernel;
use crate::kernels::cpu::kv_cache as cpu;
use crate::kernels::cuda::kv_cache as cuda;
use crate::kernels::precision::Precision;

/// The keys and values of one block's sequences.
#[derive(Debug)]
pub struct KvCache {
    memory: Memory,
    shape: Shape,
}

/// Keys and values where they are, and in host memory by their dtype.
#[derive(Debug)]
enum Memory {
    F32(Vec<cpu::Sequence<f32>>),
    Bf16(Vec<cpu::Sequence<bf16>>),
    F64(Vec<cpu::Sequence<f64>>),
    Gpu(cuda::Cache),
}

/// The keys and values of a prompt, for any number of sequences.
#[derive(Debug, Clone)]
pub struct Prefix {
    tokens: usize,
    memory: PrefixMemory,
}

#[derive(Debug, Clone)]
enum PrefixMemory {
    F32(cpu::Prefix<f32>),
    Bf16(cpu::Prefix<bf16>),
    F64(cpu::Prefix<f64>),
    Gpu([Tensor; 2]),
}

impl Prefix {
    /// From the keys and values of its tokens, (tokens, kv_heads, head_dim); in host memory f32 ones are
    /// cached in bf16 where matmuls round to it, and else nothing is rounded.
    ///
    /// # Errors
    /// If shapes or dtypes differ, or there is no kernel for them.
    pub fn new(keys: &Tensor, values: &Tensor, precision: Precision) -> Result<Self> {
        let (tokens, ..) = keys.dims3()?;
        if keys.dims() != values.dims() || keys.dtype() != values.dtype() {
            return Err(Error::failed(format!(
                "keys {:?} and values {:?} of one prompt",
                keys.dims(),
                values.dims()
            )));
        }
        let memory = match (Backend::of(keys), keys.dtype(), precision) {
            (Backend::Cpu, DType::F32, Precision::Full) => {
                PrefixMemory::F32(cpu::prefix(keys, values)?)
            }
            (Backend::Cpu, DType::F32, Precision::Bf16) => {
                PrefixMemory::Bf16(cpu::prefix(keys, values)?)
            }
            (Backend::Cpu, DType::F64, _) => PrefixMemory::F64(cpu::prefix(keys, values)?),
            (Backend::Cpu, other, _) => return Err(no_kernel(other)),
            (Backend::Cuda | Backend::Emulator, ..) => {
                PrefixMemory::Gpu([keys.clone(), values.clone()])
            }
        };
        Ok(Self { tokens, memory })
    }
}

impl KvCache {
    /// Slots without a sequence, for keys and values of `dtype` on `device`, cached as [`Prefix::new`]
    /// says.
    ///
    /// # Errors
    /// If there is no kernel for them, or no memory on a GPU.
    pub fn new(shape: Shape, dtype: DType, precision: Precision, device: &Device) -> Result<Self> {
        let memory = match (Backend::on(device), dtype, precision) {
            (Backend::Cpu, DType::F32, Precision::Full) => Memory::F32(none(shape.slots)),
            (Backend::Cpu, DType::F32, Precision::Bf16) => Memory::Bf16(none(shape.slots)),
            (Backend::Cpu, DType::F64, _) => Memory::F64(none(shape.slots)),
            (Backend::Cpu, other, _) => return Err(no_kernel(other)),
            (Backend::Cuda | Backend::Emulator, ..) => {
                Memory::Gpu(cuda::Cache::new(&shape, dtype, device)?)
            }
        };
        Ok(Self { memory, shape })
    }

    /// Begins a sequence with a prompt's tokens; the slot's last one is gone.
    ///
    /// # Errors
    /// If there is no such slot, or the prompt does not fit.
    pub fn begin(&mut self, slot: usize, prefix: &Prefix) -> Result<()> {
        let Shape {
            slots, capacity, ..
        } = self.shape;
        if slot >= slots || prefix.tokens > capacity {
            let tokens = prefix.tokens;
            return Err(Error::failed(format!(
                "{tokens} tokens in slot {slot} of {slots} slots of {capacity}"
            )));
        }
        match (&mut self.memory, &prefix.memory) {
            (Memory::F32(all), PrefixMemory::F32(prompt)) => {
                all[slot] = cpu::Sequence::begin(prompt.clone());
            }
            (Memory::Bf16(all), PrefixMemory::Bf16(prompt)) => {
                all[slot] = cpu::Sequence::begin(prompt.clone());
            }
            (Memory::F64(all), PrefixMemory::F64(prompt)) => {
                all[slot] = cpu::Sequence::begin(prompt.clone());
            }
            (Memory::Gpu(cache), PrefixMemory::Gpu(prompt)) => cache.begin(slot, prompt)?,
            _ => return Err(Error::failed("a prompt of another dtype or device")),
        }
        Ok(())
    }

    /// Frees the memory of a sequence that has ended.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn end(&mut self, slot: usize) {
        match &mut self.memory {
            Memory::F32(all) => all[slot] = cpu::Sequence::default(),
            Memory::Bf16(all) => all[slot] = cpu::Sequence::default(),
            Memory::F64(all) => all[slot] = cpu::Sequence::default(),
            Memory::Gpu(_) => {}
        }
    }

    /// Takes in one token for each row and attends: `q` (rows, heads, head_dim), `k` and `v`
    /// (rows, kv_heads, head_dim) -> (rows, heads, head_dim).
    ///
    /// # Errors
    /// If a slot has no room left, or shapes do not fit.
    pub fn extend(
        &mut self,
        places: &Places,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor> {
        self.check(places, [q, k, v])?;
        let scores = self.shape.scores;
        match &mut self.memory {
            Memory::F32(all) => cpu::extend(all, places, [q, k, v], scores),
            Memory::Bf16(all) => cpu::extend(all, places, [q, k, v], scores),
            Memory::F64(all) => cpu::extend(all, places, [q, k, v], scores),
            Memory::Gpu(cache) => cache.extend(places, [q, k, v], scores),
        }
    }

    fn check(&self, places: &Places, [q, k, v]: [&Tensor; 3]) -> Result<()> {
        let shape = &self.shape;
        let (rows, heads, dim) = q.dims3()?;
        let taken = [rows, shape.kv_heads, shape.head_dim];
        let fit = k.dims() == taken && v.dims() == taken && dim == shape.head_dim;
        let dense = [q, k, v].iter().all(|x| dim <= 1 || x.stride()[2] == 1);
        if !fit || !dense || heads % shape.kv_heads != 0 || rows != places.slots.len() {
            return Err(Error::failed(format!(
                "{:?} queries, {:?} keys, {:?} values of {} rows with {shape:?}",
                q.dims(),
                k.dims(),
                v.dims(),
                places.slots.len()
            )));
        }
        let mut taken = vec![false; shape.slots];
        for (&slot, &length) in places.slots.iter().zip(&places.lengths) {
            if length >= shape.capacity {
                return Err(Error::failed("no room for another token"));
            }
            if slot >= shape.slots || std::mem::replace(&mut taken[slot], true) {
                return Err(Error::failed(format!("slot {slot} twice, or none")));
            }
        }
        Ok(())
    }
}

fn none<T>(slots: usize) -> Vec<cpu::Sequence<T>> {
    (0..slots).map(|_| cpu::Sequence::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::attention::{Packing, Scores, attention};
    use crate::kernels::testing::*;
    use crate::segment::Segment;

    const HEADS: [usize; 2] = [4, 2];
    const TOTAL: usize = 140;
    const FULL: Precision = Precision::Full;

    /// Queries, keys and values of the sequences' tokens.
    fn inputs(sequences: u64, dim: usize) -> Vec<[Tensor; 3]> {
        let x = |seed, heads| variable(seed, &[TOTAL, heads, dim]).as_tensor().clone();
        let of = |s| {
            let [heads, kv_heads] = HEADS;
            [
                x(3 * s, heads),
                x(3 * s + 1, kv_heads),
                x(3 * s + 2, kv_heads),
            ]
        };
        (0..sequences).map(of).collect()
    }

    /// The last of `tokens` by attention over all of them at once.
    fn whole([q, k, v]: &[Tensor; 3], tokens: usize, scores: Scores) -> Tensor {
        let part = |x: &Tensor| x.narrow(0, 0, tokens).unwrap();
        let packing = Packing::new(vec![Segment::new(0..0, 0..tokens)], q.device()).unwrap();
        let y = attention(&part(q), &part(k), &part(v), &packing, scores);
        y.unwrap().0.narrow(0, tokens - 1, 1).unwrap()
    }

    fn shape(slots: usize, dim: usize, scores: Scores) -> Shape {
        Shape {
            slots,
            capacity: TOTAL,
            kv_heads: HEADS[1],
            head_dim: dim,
            scores,
        }
    }

    /// Sequences of prompts of one token, of a chunk and of more, which begin and end at different
    /// times, two of them after one prompt: each is what it is alone.
    #[test]
    fn extending_equals_attention_over_the_whole() {
        for (dim, window, softcap) in [
            (5, None, None),
            (5, Some(1), None),
            (72, Some(3), None),
            (64, Some(70), None),
            (9, None, None),
            (5, Some(70), Some(0.5)),
            (64, None, Some(2.0)),
        ] {
            let how = Scores {
                softcap,
                ..scores(dim, window)
            };
            let all = inputs(4, dim);
            let prefix = |s: usize, n: usize| {
                let part = |x: &Tensor| x.narrow(0, 0, n).unwrap();
                Prefix::new(&part(&all[s][1]), &part(&all[s][2]), FULL).unwrap()
            };
            let (dtype, device) = (DType::F64, Device::Cpu);
            let mut cache = KvCache::new(shape(3, dim, how), dtype, FULL, &device).unwrap();
            // Of each slot, the sequence and its tokens.
            let mut now: [Option<(usize, usize)>; 3] = [None; 3];
            let shared = prefix(0, 66);
            for step in 0..8 {
                let begins: &[(usize, usize, usize)] = match step {
                    0 => &[(0, 0, 66), (2, 1, 1)],
                    2 => &[(1, 0, 66)],
                    5 => &[(2, 2, 128), (0, 3, 63)],
                    _ => &[],
                };
                for &(slot, s, n) in begins {
                    cache.end(slot);
                    let own = if s == 0 { shared.clone() } else { prefix(s, n) };
                    cache.begin(slot, &own).unwrap();
                    now[slot] = Some((s, n));
                }
                // In another order each time.
                let mut slots: Vec<usize> = (0..3).filter(|&slot| now[slot].is_some()).collect();
                let turn = step % slots.len();
                slots.rotate_left(turn);
                let rows: Vec<(usize, usize)> =
                    slots.iter().map(|&slot| now[slot].unwrap()).collect();
                let lengths: Vec<usize> = rows.iter().map(|&(_, n)| n).collect();
                let token = |part: usize| {
                    let rows = rows
                        .iter()
                        .map(|&(s, n)| all[s][part].narrow(0, n, 1).unwrap());
                    Tensor::cat(&rows.collect::<Vec<_>>(), 0).unwrap()
                };
                let places = Places::new(&slots, &lengths, &device).unwrap();
                let got = cache.extend(&places, &token(0), &token(1), &token(2));
                let got = got.unwrap();
                for (row, &(s, n)) in rows.iter().enumerate() {
                    let want = whole(&all[s], n + 1, how);
                    assert_close(&got.narrow(0, row, 1).unwrap(), &want, "attended");
                }
                for slot in slots {
                    now[slot] = now[slot].map(|(s, n)| (s, n + 1));
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let [q, k, v] = &inputs(1, 4)[0];
        let token = |x: &Tensor| x.narrow(0, 0, 1).unwrap();
        let shape = Shape {
            capacity: 3,
            ..shape(2, 4, scores(4, None))
        };
        let mut cache = KvCache::new(shape, DType::F64, FULL, q.device()).unwrap();
        let prompt = |n| {
            Prefix::new(
                &k.narrow(0, 0, n).unwrap(),
                &v.narrow(0, 0, n).unwrap(),
                FULL,
            )
        };
        assert!(cache.begin(0, &prompt(4).unwrap()).is_err());
        assert!(cache.begin(2, &prompt(1).unwrap()).is_err());
        cache.begin(0, &prompt(2).unwrap()).unwrap();
        let mut extend = |slots: &[usize], lengths: &[usize], q: &Tensor| {
            let places = Places::new(slots, lengths, q.device())?;
            cache.extend(&places, q, &token(k), &token(v))
        };
        assert!(extend(&[0], &[3], &token(q)).is_err(), "no room is left");
        assert!(extend(&[2], &[2], &token(q)).is_err());
        assert!(extend(&[0], &[2, 2], &token(q)).is_err());
        assert!(extend(&[0], &[2], &token(q).narrow(1, 0, 3).unwrap()).is_err());
        assert!(extend(&[0], &[2], &token(q)).is_ok());
        assert!(Prefix::new(k, &token(v), FULL).is_err());
    }
}
