//! Sums and pieces of tensors over ranks.
//!
//! On GPUs NCCL moves the parts, and the GPU adds them in the order of [`tree`].

use std::ops::Range;

use candle_core::Tensor;

use super::elementwise::{add_assign, assign};
use crate::error::{Error, Result};
use crate::kernels::backend::Backend;
use crate::kernels::cpu;
use crate::kernels::cuda::driver::address;
use crate::kernels::ranks::nccl::Transfer;
use crate::kernels::ranks::{Ranks, tree};
use crate::kernels::tensor::{Dst, fresh};

/// Bytes that a GPU gets of each rank before it adds them: enough for the bandwidth of NVLink.
const CHUNK: usize = 16 << 20;

/// `piece` becomes this rank's range of the sum of `whole`, (elements) f32, over ranks, added in the order
/// of [`tree`]. `pieces`, the same at every rank, are the ranges of `whole` that ranks get. `what` is waited
/// for.
///
/// # Errors
/// If a rank fails, or the tensors are not f32 or have gaps.
pub fn sum<'a>(
    ranks: &Ranks,
    what: &str,
    whole: &Tensor,
    pieces: &[Range<usize>],
    piece: impl Into<Dst<'a>>,
) -> Result<()> {
    let piece = piece.into();
    match Backend::of(whole) {
        Backend::Cpu | Backend::Emulator => {
            let whole = cpu::host::read(whole);
            let whole = whole.values::<f32>()?;
            cpu::host::write(piece, |piece: &mut [f32]| {
                ranks.sum_pieces(what, whole, pieces, piece)
            })
        }
        Backend::Cuda => sum_on_gpus(ranks, what, whole, pieces, piece),
    }
}

fn sum_on_gpus(
    ranks: &Ranks,
    what: &str,
    whole: &Tensor,
    pieces: &[Range<usize>],
    mut piece: Dst,
) -> Result<()> {
    let own = &pieces[ranks.rank()];
    check(whole, pieces, ranks)?;
    if piece.dims() != [own.len()] || !piece.is_contiguous() || piece.dtype() != whole.dtype() {
        return Err(Error::failed("a piece of another length or dtype"));
    }
    let width = whole.dtype().size_in_bytes();
    let longest = pieces.iter().map(Range::len).max().unwrap_or(0);
    // Rows begin where NCCL and kernels move 16 bytes at once.
    let stride = longest.next_multiple_of(16 / width).min(CHUNK / width);
    // SAFETY: a row is read where something was received or copied.
    let rows = unsafe { fresh((ranks.size(), stride), whole)? };
    let (from, to) = (address(whole)?, address(&rows)?);
    let additions = tree::additions(ranks.size());
    for start in (0..longest).step_by(stride.max(1)) {
        let part = |range: &Range<usize>| start.min(range.len())..range.len().min(start + stride);
        let length = part(own).len();
        let mut transfers = Vec::new();
        for rank in others(ranks) {
            let leaving = part(&pieces[rank]);
            let at = from + ((pieces[rank].start + leaving.start) * width) as u64;
            transfers.push(sends(rank, at, leaving.len() * width));
            let row = to + (rank * stride * width) as u64;
            transfers.push(receives(rank, row, length * width));
        }
        // SAFETY: `whole` and `rows` are the device's; the stream is waited for below.
        unsafe { ranks.transfer(what, whole.device(), &transfers)? };
        if length == 0 {
            continue;
        }
        let mine = whole.narrow(0, own.start + start, length)?;
        let row = |rank: usize| rows.get(rank)?.narrow(0, 0, length);
        assign(cube(Dst::shared(&row(ranks.rank())?))?, &cube_of(&mine)?)?;
        for &(to, from) in &additions {
            add_assign(Dst::shared(&row(to)?), &row(from)?)?;
        }
        let into = piece
            .reborrow()
            .narrowed(|piece| piece.narrow(0, start, length))?;
        assign(cube(into)?, &cube_of(&row(0)?)?)?;
    }
    ranks.finish(what, whole.device())
}

/// Each rank has its range of `pieces` in `whole`, (elements); afterwards each has all of them.
///
/// # Errors
/// If a rank fails, or the tensor has gaps, or in host memory is not f32.
pub fn gather<'a>(
    ranks: &Ranks,
    what: &str,
    pieces: &[Range<usize>],
    whole: impl Into<Dst<'a>>,
) -> Result<()> {
    let whole = whole.into();
    let width = whole.dtype().size_in_bytes();
    let bytes = |range: &Range<usize>| range.start * width..range.end * width;
    match Backend::of(&whole) {
        Backend::Cpu | Backend::Emulator => {
            let ranges: Vec<Range<usize>> = pieces.iter().map(bytes).collect();
            cpu::host::write(whole, |whole: &mut [f32]| {
                // SAFETY: f32 has no padding, every four bytes are one, and the slice is not used meanwhile.
                let whole = unsafe {
                    let start = whole.as_mut_ptr().cast::<u8>();
                    std::slice::from_raw_parts_mut(start, size_of_val(whole))
                };
                ranks.gather_pieces(what, whole, &ranges)
            })
        }
        Backend::Cuda => {
            check(&whole, pieces, ranks)?;
            let start = address(&whole)?;
            let at = |range: Range<usize>| (start + range.start as u64, range.len());
            let (own, own_bytes) = at(bytes(&pieces[ranks.rank()]));
            let transfers = others(ranks).flat_map(|rank| {
                let (to, bytes) = at(bytes(&pieces[rank]));
                [sends(rank, own, own_bytes), receives(rank, to, bytes)]
            });
            let transfers: Vec<Transfer> = transfers.collect();
            // SAFETY: `whole` is the device's; the stream is waited for.
            unsafe { ranks.transfer(what, whole.device(), &transfers)? };
            ranks.finish(what, whole.device())
        }
    }
}

/// The other ranks; each begins with the one after it, so that not all send to the same one first.
fn others(ranks: &Ranks) -> impl Iterator<Item = usize> {
    let (own, size) = (ranks.rank(), ranks.size());
    (1..size).map(move |step| (own + step) % size)
}

fn sends(rank: usize, address: u64, bytes: usize) -> Transfer {
    Transfer {
        rank,
        address,
        bytes,
        sends: true,
    }
}

fn receives(rank: usize, address: u64, bytes: usize) -> Transfer {
    Transfer {
        rank,
        address,
        bytes,
        sends: false,
    }
}

/// # Errors
/// If the tensor is not as long as the pieces, or has gaps.
fn check(whole: &Tensor, pieces: &[Range<usize>], ranks: &Ranks) -> Result<()> {
    let mut end = 0;
    let in_order = pieces.iter().all(|piece| {
        let follows = piece.start == end && piece.end >= end;
        end = piece.end;
        follows
    });
    if in_order && whole.dims() == [end] && whole.is_contiguous() && pieces.len() == ranks.size() {
        return Ok(());
    }
    let dims = whole.dims();
    Err(Error::failed(format!("pieces {pieces:?} of {dims:?}")))
}

/// A vector as what [`assign`] takes.
fn cube(x: Dst) -> Result<Dst> {
    x.narrowed(|x| x.unsqueeze(0)?.unsqueeze(0))
}

fn cube_of(x: &Tensor) -> Result<Tensor> {
    Ok(x.unsqueeze(0)?.unsqueeze(0)?)
}
