//! Causal attention of packed segments: a token sees its segment's prefix and its own segment up to
//! itself.
//!
//! Hides that no (tokens, tokens) matrix exists. A prompt's keys and values serve all its responses.

#[cfg(test)]
mod tests;

use candle_core::{Device, Tensor};

pub use crate::kernels::operands::attention::Scores;

use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::operands::attention::{Plan, Segments};
use crate::kernels::profile::{Part, part};
use crate::kernels::tensor::Dst;
use crate::kernels::{cpu, cuda};
use crate::segment::Segment;

/// The segments of a batch, checked once for all its layers.
#[derive(Debug)]
pub struct Packing {
    segments: Segments,
    /// What the blocks of a launch work on; on a GPU alone.
    tiles: Option<cuda::attention::Tiles>,
}

impl Packing {
    /// For tensors on `device`.
    ///
    /// # Errors
    /// If the own ranges do not follow each other from token 0, queries lie outside their own range,
    /// or a prefix outside its group.
    pub fn new(segments: Vec<Segment>, device: &Device) -> Result<Self> {
        let segments = Segments::new(segments)?;
        let tiles = match Backend::on(device) {
            Backend::Cpu => None,
            Backend::Cuda | Backend::Emulator => {
                Some(cuda::attention::Tiles::new(&segments, device)?)
            }
        };
        Ok(Self { segments, tiles })
    }

    /// # Errors
    /// If it was made for host memory.
    fn tiles(&self) -> Result<&cuda::attention::Tiles> {
        let tiles = self.tiles.as_ref();
        tiles.ok_or_else(|| Error::failed("attention: a packing for another device"))
    }
}

/// What the backward pass needs beside the operands.
#[derive(Debug)]
pub struct Saved {
    /// (queries, heads): log of the sum of the exponentials of a query's scores; f32 on a GPU.
    log_sum_exp: Tensor,
    /// (queries, heads, head_dim); on a GPU alone.
    output: Option<Tensor>,
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
///
/// # Errors
/// If shapes or strides do not fit the packing, or there is no kernel for the dtypes.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    packing: &Packing,
    scores: Scores,
) -> Result<(Tensor, Saved)> {
    let _profile = part(Part::Attention);
    let plan = Plan::new(q, k, v, &packing.segments, scores)?;
    let operands = [q, k, v];
    let (y, log_sum_exp, output) = match Backend::of(q) {
        Backend::Cpu => {
            let (y, log_sum_exp) = cpu::attention::attention(&plan, operands)?;
            (y, log_sum_exp, None)
        }
        Backend::Cuda | Backend::Emulator => {
            let (y, log_sum_exp) = cuda::attention::attention(&plan, packing.tiles()?, operands)?;
            let output = Some(y.clone());
            (y, log_sum_exp, output)
        }
    };
    let saved = Saved {
        log_sum_exp,
        output,
    };
    Ok((y, saved))
}

/// Writes the gradients of q, k and v to `dqkv`, which holds zeros, in the places that they have in
/// `qkv`, the tensor they are views of; `dy` is laid out as the output of [`attention()`].
///
/// # Errors
/// As of [`attention()`], or if q, k and v are not views of one tensor laid out as `dqkv`.
pub fn backward<'a>(
    dy: &Tensor,
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    saved: &Saved,
    packing: &Packing,
    scores: Scores,
    dqkv: impl Into<Dst<'a>>,
) -> Result<()> {
    let _profile = part(Part::Attention);
    let dqkv = dqkv.into();
    let plan = Plan::new(q, k, v, &packing.segments, scores)?;
    if !dy.is_contiguous() || dy.elem_count() != plan.queries * plan.heads * plan.dim {
        return Err(Error::failed(
            "attention: a gradient of another shape than the output",
        ));
    }
    let operands = [q, k, v];
    let start = plan.places(operands, &dqkv)?;
    match (Backend::of(q), saved) {
        (Backend::Cpu, Saved { log_sum_exp, .. }) => {
            cpu::attention::backward(&plan, operands, dy, log_sum_exp, (dqkv, start))
        }
        (
            Backend::Cuda | Backend::Emulator,
            Saved {
                log_sum_exp,
                output: Some(y),
            },
        ) => {
            let (tiles, kept) = (packing.tiles()?, [y, log_sum_exp]);
            cuda::attention::backward(&plan, tiles, operands, dy, kept, (dqkv, start))
        }
        (Backend::Cuda | Backend::Emulator, Saved { output: None, .. }) => Err(Error::failed(
            "attention: an output that is on another device",
        )),
    }
}
