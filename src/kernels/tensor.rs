//! Tensors that operations write to, and how tensors lie in memory, on any device.

use std::marker::PhantomData;
use std::ops::{Deref, Range};

use candle_core::{DType, Device, Shape, Tensor};

use super::failure::of_allocation;
use crate::error::{Error, Result};

/// A tensor, or a view of one, that an operation writes to.
///
/// It is made from `&mut Tensor`, so a signature says which operands change, and the borrow checker
/// refuses one tensor as both an operand that is read and one that is written.
///
/// It cannot see through candle's handles: clones and views of a tensor share its memory, and are
/// written through, too. Whoever owns a tensor that is written keeps its other handles to itself.
/// In host memory a kernel locks what it reads and writes, so one that reads a view of the memory that
/// it writes deadlocks.
#[derive(Debug)]
pub struct Dst<'a> {
    tensor: Tensor,
    borrow: PhantomData<&'a mut Tensor>,
}

impl<'a> Dst<'a> {
    /// The columns `range` of the last dimension of a wider tensor.
    ///
    /// # Errors
    /// If the tensor has no such columns.
    pub fn columns(tensor: &'a mut Tensor, range: Range<usize>) -> Result<Self> {
        Self::view(tensor, |x| {
            x.narrow(x.rank().saturating_sub(1), range.start, range.len())
        })
    }

    /// A view of a tensor: what `f` makes of it without a copy.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn view(
        tensor: &'a mut Tensor,
        f: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Self> {
        Ok(Self {
            tensor: f(tensor)?,
            borrow: PhantomData,
        })
    }

    /// A view of it: what `f` makes of it without a copy.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn narrowed(self, f: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self {
            tensor: f(&self.tensor)?,
            borrow: PhantomData,
        })
    }

    /// A tensor whose other handles may be in use: for owners that share memory by design, as a flat
    /// buffer does with its views. Nothing is checked.
    pub fn shared(tensor: &Tensor) -> Dst<'static> {
        Dst {
            tensor: tensor.clone(),
            borrow: PhantomData,
        }
    }

    /// The same, for one of several operations that write to it.
    pub fn reborrow(&mut self) -> Dst<'_> {
        Dst {
            tensor: self.tensor.clone(),
            borrow: PhantomData,
        }
    }
}

impl<'a> From<&'a mut Tensor> for Dst<'a> {
    fn from(tensor: &'a mut Tensor) -> Self {
        Self {
            tensor: tensor.clone(),
            borrow: PhantomData,
        }
    }
}

impl Deref for Dst<'_> {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

/// A new tensor with the dtype and device of `like`, of uninitialized memory.
///
/// # Safety
/// All of it is written before any of it is read.
pub(super) unsafe fn fresh(shape: impl Into<Shape>, like: &Tensor) -> Result<Tensor> {
    // SAFETY: as the caller promises.
    unsafe { fresh_of(shape, like.dtype(), like) }
}

/// A new tensor of `dtype` on the device of `like`, of uninitialized memory.
///
/// # Safety
/// As of [`fresh`].
pub(super) unsafe fn fresh_of(
    shape: impl Into<Shape>,
    dtype: DType,
    like: &Tensor,
) -> Result<Tensor> {
    // SAFETY: as the caller promises.
    unsafe { fresh_on(shape, dtype, like.device()) }
}

/// A new tensor of `dtype` on `device`, of uninitialized memory.
///
/// # Safety
/// As of [`fresh`].
pub(super) unsafe fn fresh_on(
    shape: impl Into<Shape>,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    // SAFETY: as the caller promises.
    allocated(shape.into(), dtype, |shape| unsafe {
        Tensor::empty(shape, dtype, device)
    })
}

/// What `make` makes of a shape. A driver is never asked for 0 bytes, of which CUDA's documentation does
/// not say what becomes.
pub(super) fn allocated(
    shape: Shape,
    dtype: DType,
    make: impl Fn(Shape) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    let count = shape.elem_count();
    if count == 0 {
        return Ok(make(1.into())?.narrow(0, 0, 0)?.reshape(shape)?);
    }
    make(shape).map_err(|error| of_allocation(error, count * dtype.size_in_bytes()))
}

/// Checks that tensors have one shape and are contiguous.
///
/// # Errors
/// Names `kernel` and the shapes.
pub(super) fn check_alike(kernel: &str, tensors: &[&Tensor]) -> Result<()> {
    let alike = |x: &&Tensor| x.is_contiguous() && x.dims() == tensors[0].dims();
    if tensors.iter().all(alike) {
        return Ok(());
    }
    let dims: Vec<_> = tensors.iter().map(|x| x.dims()).collect();
    Err(Error::failed(format!(
        "{kernel}: operands must be contiguous and of one shape, not {dims:?}"
    )))
}

/// Rows, their width and their distance for a tensor (.., width) whose last dimension has no gaps.
///
/// # Errors
/// If the tensor is laid out in another way.
pub(super) fn rows(tensor: &Tensor) -> Result<(usize, usize, usize)> {
    let (dims, strides) = (tensor.dims(), tensor.stride());
    let Some((&width, before)) = dims.split_last() else {
        return Err(Error::failed("a scalar has no rows"));
    };
    let count = before.iter().product();
    let mut distance = width;
    let mut expected = None;
    for (n, stride) in before.iter().zip(strides).rev() {
        if *n == 1 {
            continue;
        }
        match expected {
            None => distance = *stride,
            Some(expected) if expected == *stride => {}
            Some(_) => return Err(Error::failed("rows at uneven distances")),
        }
        expected = Some(stride * n);
    }
    if width > 1 && strides[dims.len() - 1] != 1 {
        return Err(Error::failed("a row with gaps"));
    }
    Ok((count, width, distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_view_are_known() {
        let whole = Tensor::zeros((3, 2, 4), DType::F32, &Device::Cpu).unwrap();
        let view = whole.narrow(1, 1, 1).unwrap().squeeze(1).unwrap();
        assert_eq!(rows(&view).unwrap(), (3, 4, 8));
        assert_eq!(rows(&whole).unwrap(), (6, 4, 4));
        assert_eq!(rows(&whole.narrow(2, 1, 2).unwrap()).unwrap(), (6, 2, 4));
        assert!(rows(&whole.t().unwrap()).is_err());
    }
}
