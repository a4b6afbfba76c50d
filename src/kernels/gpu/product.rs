//! Products of matrices: cuBLAS's, with sums in f32.

use candle_core::{DType, Tensor};

use super::launch::address;
use crate::error::{Error, Result};

/// A matrix as cuBLAS sees it: its memory by columns, or that of its transpose.
pub(super) struct Operand {
    pub address: u64,
    pub dtype: DType,
    /// Elements from one column to the next.
    pub leading: usize,
    /// Whether what lies there by columns is the transpose.
    pub transposed: bool,
}

/// `c` (m, n) becomes, or where `add` grows by, `a` (m, k) times `b` (k, n). Each may be a view by rows
/// or by columns, and `c` one by rows; `a` and `b` have one dtype, f32 or bf16, and `c` that or f32.
pub fn product(a: &Tensor, b: &Tensor, c: &Tensor, add: bool) -> Result<()> {
    let ((m, k), (inner, n), shape) = (a.dims2()?, b.dims2()?, c.dims2()?);
    let types = [a, b, c].map(Tensor::dtype);
    let served = match types {
        [DType::F32, DType::F32, DType::F32] => true,
        [DType::BF16, DType::BF16, c] => c == DType::F32 || c == DType::BF16,
        _ => false,
    };
    if inner != k || shape != (m, n) || !served {
        return Err(Error::failed(format!(
            "a product of {:?} and {:?} into {shape:?}, {types:?}",
            a.dims(),
            b.dims()
        )));
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    // By columns the memory of c is its transpose, and that is b's transpose times a's.
    let (left, right, out) = (operand(b)?, operand(a)?, operand(c)?);
    if out.transposed {
        return Err(Error::failed("a product into a matrix by columns"));
    }
    #[cfg(test)]
    if super::twin::is_on() {
        return super::twin::product(left, right, out, [n, m, k], add);
    }
    #[cfg(feature = "cuda")]
    return super::cuda::product(a.device(), left, right, out, [n, m, k], add);
    #[cfg(not(feature = "cuda"))]
    Err(Error::failed("no GPU"))
}

/// The transpose of a matrix, as cuBLAS reads it.
fn operand(x: &Tensor) -> Result<Operand> {
    let ((rows, columns), stride) = (x.dims2()?, x.stride());
    let by_rows = stride[1] == 1 || columns == 1;
    let by_columns = stride[0] == 1 || rows == 1;
    let (leading, least) = match (by_rows, by_columns) {
        (true, _) => (if rows == 1 { columns } else { stride[0] }, columns),
        (_, true) => (if columns == 1 { rows } else { stride[1] }, rows),
        _ => return Err(Error::failed(format!("a matrix with strides {stride:?}"))),
    };
    if leading < least {
        return Err(Error::failed(format!("a matrix with strides {stride:?}")));
    }
    Ok(Operand {
        address: address(x)?,
        dtype: x.dtype(),
        leading,
        transposed: !by_rows,
    })
}
