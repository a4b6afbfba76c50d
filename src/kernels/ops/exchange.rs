//! Sums and pieces of tensors over ranks.

use std::ops::Range;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernels::cpu;
use crate::kernels::ranks::Ranks;
use crate::kernels::tensor::Dst;

/// `piece` becomes this rank's range of the sum of `whole`, (elements) f32, over ranks, added in the order
/// of [`Ranks::sum_pieces`]. `pieces` are the ranges of `whole` that ranks get. `what` is waited for.
///
/// # Errors
/// If a rank fails, or the tensors are not f32 in host memory.
pub fn sum<'a>(
    ranks: &Ranks,
    what: &str,
    whole: &Tensor,
    pieces: &[Range<usize>],
    piece: impl Into<Dst<'a>>,
) -> Result<()> {
    check_host(whole)?;
    let whole = cpu::host::read(whole);
    let whole = whole.values::<f32>()?;
    cpu::host::write(piece.into(), |piece: &mut [f32]| {
        ranks.sum_pieces(what, whole, pieces, piece)
    })
}

/// Each rank has its range of `pieces` in `whole`, (elements) f32; afterwards each has all of them.
///
/// # Errors
/// If a rank fails, or the tensors are not f32 in host memory.
pub fn gather<'a>(
    ranks: &Ranks,
    what: &str,
    pieces: &[Range<usize>],
    whole: impl Into<Dst<'a>>,
) -> Result<()> {
    let whole = whole.into();
    check_host(&whole)?;
    let width = size_of::<f32>();
    let bytes = |range: &Range<usize>| range.start * width..range.end * width;
    let ranges: Vec<Range<usize>> = pieces.iter().map(bytes).collect();
    cpu::host::write(whole, |whole: &mut [f32]| {
        // SAFETY: f32 has no padding, every four bytes are one, and the slice is not used meanwhile.
        let whole = unsafe {
            std::slice::from_raw_parts_mut(whole.as_mut_ptr().cast::<u8>(), size_of_val(whole))
        };
        ranks.gather_pieces(what, whole, &ranges)
    })
}

fn check_host(tensor: &Tensor) -> Result<()> {
    if tensor.device().is_cpu() {
        return Ok(());
    }
    let what = "an exchange between ranks of what is not in host memory";
    Err(Error::failed(what))
}
