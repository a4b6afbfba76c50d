//! Sums over the rows of a matrix, as gradients of biases and norms are.

use candle_core::{DType, Tensor};

use super::module::{Arg, Grid, PACK, Source, check_types, source, type_name};
use crate::error::Result;
use crate::kernels::tensor::{Dst, fresh_of, rows};

static TEXT: Source = source!("columns");

const THREADS: usize = 256;

/// Columns of one block.
const TILE: usize = 32 * PACK;

/// Rows that one block sums without help.
const ROWS: usize = 512;

/// Blocks that fill a card; a number of their own would make sums depend on it.
const BLOCKS: usize = 132 * 8;

/// Adds the column sums of `x` (n, width), whose rows may be apart, to `sums` (width) in f32: those of
/// slices of the rows, then theirs, so many as the shape alone says.
pub fn add_sums(x: &Tensor, sums: Dst) -> Result<()> {
    let (count, width, _) = rows(x)?;
    check_types("column sums", DType::F32, &[&sums])?;
    if count <= ROWS {
        return launch(x, sums, count.max(1), true);
    }
    let slices = (BLOCKS / width.div_ceil(TILE)).clamp(1, count.div_ceil(ROWS / 8));
    let slice = count.div_ceil(slices);
    // SAFETY: all of it is written below.
    let mut partials = unsafe { fresh_of((count.div_ceil(slice), width), DType::F32, x)? };
    launch(x, (&mut partials).into(), slice, false)?;
    launch(&partials, sums, partials.dim(0)?, true)
}

/// Sums of every `slice` rows, a row of `y` each.
fn launch(x: &Tensor, y: Dst, slice: usize, add: bool) -> Result<()> {
    let (count, width, distance) = rows(x)?;
    let blocks = [width.div_ceil(TILE), count.div_ceil(slice), 1];
    let grid = Grid::new(blocks, THREADS, THREADS / 32 * TILE * size_of::<f32>());
    let numbers = [count, width, distance, slice, usize::from(add)].map(Arg::Int);
    let args = [&[x.into(), (&y).into()][..], &numbers].concat();
    let module = TEXT.with([("X", type_name(x.dtype())?)])?;
    module.launch("column_sums", grid, &args)
}

/// What [`super::ptx_tests`] compiles.
#[cfg(test)]
pub(super) fn modules() -> super::module::Listed {
    super::module::of_types(&TEXT, &["X"], THREADS)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use crate::kernels::cuda::ptx_tests::covering;
    use crate::kernels::emulator::compare;
    use crate::kernels::linear::backward_bias;
    use crate::kernels::tensor::Dst;
    use crate::kernels::testing::*;

    #[test]
    fn sums_of_rows_are_those_of_the_processor() {
        check(&[(1, 1), (5, 33), (70, 257), (512, 5), (513, 1), (1300, 270)]);
    }

    #[test]
    fn their_ptx_computes_the_same() {
        covering(super::modules(), || check(&[(5, 33), (70, 257), (513, 1)]));
    }

    fn check(sizes: &[(usize, usize)]) {
        for dtype in [DType::F32, DType::BF16] {
            for &(count, width) in sizes {
                let inputs = [
                    variable(1, &[count, width + 3]).to_dtype(dtype).unwrap(),
                    variable(2, &[width]).to_dtype(DType::F32).unwrap(),
                ];
                compare("column sums", &inputs, 1e-6, |inputs: &[Tensor]| {
                    let dy = inputs[0].narrow(1, 2, width).unwrap();
                    backward_bias(&dy, Dst::shared(&inputs[1])).unwrap();
                    vec![inputs[1].clone()]
                });
            }
        }
    }
}
