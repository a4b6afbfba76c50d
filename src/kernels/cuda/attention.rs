//! Attention of packed segments; the operands are checked where the operation is.
//!
//! Hides the lists of what each block of a launch works on: they depend on the batch alone, are made
//! once and serve all its layers.

use candle_core::{DType, Device, Tensor};

use super::module::{Arg, Grid, Module, Source, type_name};
use crate::error::{Error, Result};
use crate::kernels::device::from_host;
use crate::kernels::operands::attention::{Plan, Segments};
use crate::kernels::tensor::{Dst, fresh, fresh_of};
use crate::segment::Segment;

static TEXT: Source = Source {
    name: "attention",
    text: concat!(include_str!("mma.cuh"), include_str!("attention.cu")),
};

/// Queries, or keys with their gradients, of a block.
const TILE: usize = 64;

/// Threads of four warps, 16 rows of a tile to each.
const THREADS: usize = 128;

/// The widest heads: sums over more do not fit the registers.
const WIDEST: usize = 256;

/// Shared memory of a block on any card since sm_80.
const SHARED: usize = 99 << 10;

/// The largest number of tokens at which positions, and the window, fit the kernels' integers.
const MOST_TOKENS: usize = 1 << 30;

/// What the blocks of a launch work on.
#[derive(Debug)]
pub struct Tiles {
    /// (tiles, 6), u32: a run of a segment's queries, as in attention.cu, those with most keys first.
    queries: Tensor,
    /// (runs, 4), u32: tokens as keys, those with most visits first.
    runs: Tensor,
    /// u32: the tiles that see some of a run's keys, run by run.
    visits: Tensor,
}

/// Queries of one segment, in tokens and in rows of the output.
struct Tile {
    first: usize,
    count: usize,
    row: usize,
    prefix: usize,
    before: usize,
    own: usize,
}

impl Tile {
    fn numbers(&self) -> [usize; 6] {
        let Self {
            first, count, row, ..
        } = *self;
        [first, count, row, self.prefix, self.before, self.own]
    }

    fn keys(&self) -> usize {
        self.before + self.first + self.count - self.own
    }

    /// Whether a query sees a token of that run of its group.
    fn sees(&self, first: usize, count: usize) -> bool {
        let prefix = first < self.prefix + self.before && self.prefix < first + count;
        prefix || (self.own < first + count && first < self.first + self.count)
    }
}

impl Tiles {
    /// Lists for checked segments, uploaded to `device`.
    ///
    /// # Errors
    /// If there are too many tokens, or the device has no memory for the lists.
    pub fn new(segments: &Segments, device: &Device) -> Result<Self> {
        let (groups, tokens) = (&segments.groups, segments.tokens);
        if tokens >= MOST_TOKENS {
            return Err(Error::failed(format!("attention: {tokens} tokens")));
        }
        let by_group: Vec<Vec<Tile>> = groups
            .iter()
            .map(|group| tiles(&segments.all[group.segments.clone()], group.output))
            .collect();
        let mut order: Vec<&Tile> = by_group.iter().flatten().collect();
        order.sort_by_key(|tile| std::cmp::Reverse(tile.keys()));
        let mut place = vec![0; order.iter().map(|tile| tile.row + 1).max().unwrap_or(0)];
        for (at, tile) in order.iter().enumerate() {
            place[tile.row] = at;
        }
        let (mut runs, mut visits) = (Vec::new(), Vec::new());
        for (group, tiles) in groups.iter().zip(&by_group) {
            for first in group.tokens.clone().step_by(TILE) {
                let count = TILE.min(group.tokens.end - first);
                let seen = tiles.iter().filter(|tile| tile.sees(first, count));
                let before = visits.len();
                visits.extend(seen.map(|tile| place[tile.row]));
                runs.push([first, count, before, visits.len() - before]);
            }
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run[3]));
        let queries: Vec<usize> = order.iter().flat_map(|tile| tile.numbers()).collect();
        let parts = [&queries, runs.as_flattened(), &visits];
        let all: Vec<u32> = parts.concat().into_iter().map(|n| n as u32).collect();
        let all = from_host(&all, all.len(), device)?;
        let mut start = 0;
        let [queries, runs, visits] = parts.map(|part| {
            start += part.len();
            all.narrow(0, start - part.len(), part.len())
        });
        Ok(Self {
            queries: queries?.reshape(((), 6))?,
            runs: runs?.reshape(((), 4))?,
            visits: visits?,
        })
    }
}

/// The queries of a group's segments, the first of which is row `row` of the output.
fn tiles(segments: &[Segment], mut row: usize) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for segment in segments {
        let queries = segment.queries.clone();
        for first in queries.clone().step_by(TILE) {
            let count = TILE.min(queries.end - first);
            tiles.push(Tile {
                first,
                count,
                row,
                prefix: segment.prefix.start,
                before: segment.prefix.len(),
                own: segment.own.start,
            });
            row += count;
        }
    }
    tiles
}

/// A module and what its launches share.
struct Kernels<'a> {
    module: Module,
    tiles: &'a Tiles,
    /// Bytes of a row in shared memory.
    row: usize,
    /// Rows of keys, or of queries, that are in shared memory at a time.
    keys: usize,
    queries: usize,
    /// Warps that share a key's columns.
    shares: usize,
    /// Strides, heads per head of keys, window, scale, soft cap.
    numbers: Vec<Arg<'a>>,
}

impl<'a> Kernels<'a> {
    fn new(plan: &Plan, tiles: &'a Tiles, operands: &[&Tensor]) -> Result<Self> {
        let dtype = operands[0].dtype();
        let a = type_name(dtype)?;
        if plan.dim > WIDEST || operands.iter().any(|x| x.dtype() != dtype) {
            let dtypes: Vec<DType> = operands.iter().map(|x| x.dtype()).collect();
            return Err(Error::failed(format!(
                "attention on a GPU: heads of {}, {dtypes:?}; valid: up to {WIDEST}, one dtype",
                plan.dim
            )));
        }
        let width = plan.dim.next_multiple_of(16);
        let row = width * dtype.size_in_bytes() + 16;
        // As many at a time as registers for their scores, and shared memory, are there for.
        let fitting = |most: usize| {
            let mut count = most;
            while count > 16 && shared(row, count) > SHARED {
                count /= 2;
            }
            count
        };
        let keys = fitting(match width {
            0..=128 => 64,
            129..=192 => 32,
            _ => 16,
        });
        let queries = fitting(match (width, plan.softcap) {
            (0..=96, _) => 64,
            // The slopes of a soft cap take registers, too.
            (97..=128, Some(_)) => 16,
            _ => 32,
        });
        let shares = if width > 128 { 2 } else { 1 };
        let defines = [
            ("A", a),
            ("HEAD_DIM", plan.dim.into()),
            ("KEYS", keys.into()),
            ("QUERIES", queries.into()),
            ("SHARES", shares.into()),
            ("CAPPED", usize::from(plan.softcap.is_some()).into()),
        ];
        let strides = plan.strides.iter().flat_map(|&(token, head)| [token, head]);
        let mut numbers: Vec<Arg> = strides.map(Arg::Int).collect();
        numbers.push((plan.heads / plan.kv_heads).into());
        numbers.push(plan.window.min(MOST_TOKENS).into());
        numbers.push(Arg::Float(plan.scale));
        numbers.push(Arg::Float(plan.softcap.unwrap_or_default()));
        Ok(Self {
            module: TEXT.with(defines)?,
            tiles,
            row,
            keys,
            queries,
            shares,
            numbers,
        })
    }

    /// A block for each tile of queries and each head.
    fn over_queries(
        &self,
        kernel: &'static str,
        heads: usize,
        shared: usize,
        args: &[Arg],
    ) -> Result<()> {
        let blocks = [self.tiles.queries.dim(0)?, heads, 1];
        let args = [args, &self.numbers].concat();
        let grid = Grid::new(blocks, THREADS, shared);
        self.module.launch(kernel, grid, &args)
    }
}

/// Bytes of shared memory for two tiles, `count` rows of two operands more, and two numbers of each.
fn shared(row: usize, count: usize) -> usize {
    (2 * TILE + 2 * count) * row + 2 * count * 4
}

/// The output and each query's log of the sum, f32.
pub fn attention(plan: &Plan, tiles: &Tiles, [q, k, v]: [&Tensor; 3]) -> Result<(Tensor, Tensor)> {
    let kernels = Kernels::new(plan, tiles, &[q, k, v])?;
    // SAFETY: every query is in a tile.
    let y = unsafe { fresh((plan.queries, plan.heads, plan.dim), q)? };
    let log_sum_exp = floats(plan, q)?;
    let tensors = [q, k, v, &kernels.tiles.queries, &y, &log_sum_exp].map(Into::into);
    let shared = (TILE + 2 * kernels.keys) * kernels.row;
    kernels.over_queries("attention", plan.heads, shared, &tensors)?;
    Ok((y, log_sum_exp))
}

/// Writes the gradients of keys and values of all tokens, and of queries, at `start` of `dqkv`; `kept`
/// are the output and the logs of the sums.
pub fn backward(
    plan: &Plan,
    tiles: &Tiles,
    [q, k, v]: [&Tensor; 3],
    dy: &Tensor,
    [y, log_sum_exp]: [&Tensor; 2],
    (dqkv, start): (Dst, [usize; 3]),
) -> Result<()> {
    let kernels = Kernels::new(plan, tiles, &[q, k, v, dy, y, &dqkv])?;
    let delta = floats(plan, q)?;
    let rows = plan.queries * plan.heads;
    let args = [dy.into(), y.into(), (&delta).into(), rows.into()];
    let grid = Grid::over(dy.elem_count());
    kernels.module.launch("attention_delta", grid, &args)?;

    let Tiles {
        queries,
        runs,
        visits,
    } = kernels.tiles;
    let tensors = [q, k, v, queries, dy, log_sum_exp, &delta, &dqkv].map(Into::into);
    let args = [&tensors[..], &[start[0].into()]].concat();
    let bytes = shared(kernels.row, kernels.keys);
    kernels.over_queries("attention_queries", plan.heads, bytes, &args)?;

    let tensors = [
        q,
        k,
        v,
        queries,
        runs,
        visits,
        dy,
        log_sum_exp,
        &delta,
        &dqkv,
    ];
    let tensors = tensors.map(Into::into);
    let places = [start[1].into(), start[2].into()];
    let args = [&tensors[..], &places, &kernels.numbers].concat();
    let blocks = [runs.dim(0)?, plan.kv_heads, 1];
    let bytes = shared(kernels.row, kernels.queries);
    let grid = Grid::new(blocks, THREADS * kernels.shares, bytes);
    kernels.module.launch("attention_keys", grid, &args)
}

/// (queries, heads), f32.
fn floats(plan: &Plan, like: &Tensor) -> Result<Tensor> {
    let shape = (plan.queries, plan.heads);
    // SAFETY: every query is in a tile, and has a delta.
    unsafe { fresh_of(shape, DType::F32, like) }
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    let capped = modules_of(&[5, 80, 128, WIDEST], Some(1.0))?;
    Ok([modules_of(&[5, 64, 80, 96, 128, WIDEST], None)?, capped].concat())
}

/// For heads of these sizes.
#[cfg(test)]
pub(super) fn modules_of(sizes: &[usize], softcap: Option<f64>) -> super::module::Listed {
    use crate::kernels::precision::Precision;
    let segments = Segments::new(vec![Segment::new(0..0, 0..1)])?;
    let tiles = Tiles::new(&segments, &Device::Cpu)?;
    let module = |dim: usize, dtype: DType| -> Result<_> {
        let x = Tensor::zeros((1, 1, dim), dtype, &Device::Cpu)?;
        let plan = Plan {
            segments: &segments,
            queries: 1,
            heads: 1,
            kv_heads: 1,
            dim,
            strides: [(dim, dim); 3],
            scale: 1.0,
            window: 1,
            softcap,
            precision: Precision::Full,
        };
        let kernels = Kernels::new(&plan, &tiles, &[&x])?;
        Ok((kernels.module, THREADS * kernels.shares))
    };
    let sizes = sizes.iter();
    let all = sizes.flat_map(|&dim| [(dim, DType::F32), (dim, DType::BF16)]);
    all.map(|(dim, dtype)| module(dim, dtype)).collect()
}

#[cfg(test)]
mod tests;
