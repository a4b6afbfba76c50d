//! Tensors in host memory as slices.
//!
//! Hides candle's locks and storage enums. A kernel reads through [`Read`] and writes through
//! [`write`], and may look at a view of a larger tensor, as attention does at the queries inside a
//! fused projection. A tensor that is read and written at once would wait for itself for ever: the
//! operands of a kernel are different tensors, or views that only one side locks.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Shape, Storage, Tensor};

use super::real::Element;
use crate::error::{Error, Result};

/// A tensor to read.
pub(super) struct Read<'a, G: Deref<Target = Storage>> {
    guard: G,
    layout: &'a Layout,
}

/// Locks a tensor's memory for reading.
pub(super) fn read(tensor: &Tensor) -> Read<'_, impl Deref<Target = Storage>> {
    let (guard, layout) = tensor.storage_and_layout();
    Read { guard, layout }
}

impl<G: Deref<Target = Storage>> Read<'_, G> {
    /// The memory from the tensor's first element to its last.
    ///
    /// # Errors
    /// If it holds another type or lies on another device.
    pub(super) fn values<T: Element>(&self) -> Result<&[T]> {
        match &*self.guard {
            Storage::Cpu(storage) => Ok(&storage.as_slice::<T>()?[extent(self.layout)]),
            _ => Err(Error::failed(
                "a kernel for host memory got a tensor elsewhere",
            )),
        }
    }

    /// The ids of a contiguous u32 tensor.
    pub(super) fn ids(&self) -> Result<&[u32]> {
        match &*self.guard {
            Storage::Cpu(storage) if self.layout.is_contiguous() => {
                Ok(&storage.as_slice::<u32>()?[extent(self.layout)])
            }
            _ => Err(Error::failed("ids must be contiguous and in host memory")),
        }
    }
}

/// From the first element to the last, whatever lies between.
fn extent(layout: &Layout) -> Range<usize> {
    let start = layout.start_offset();
    if layout.shape().elem_count() == 0 {
        return start..start;
    }
    let steps = layout.dims().iter().zip(layout.stride());
    start..start + 1 + steps.map(|(n, stride)| (n - 1) * stride).sum::<usize>()
}

/// Lets `f` write to a tensor's memory, from its first element to its last.
pub(super) fn write<T: Element, R>(
    tensor: &Tensor,
    f: impl FnOnce(&mut [T]) -> Result<R>,
) -> Result<R> {
    struct Write<F, R>(RefCell<(Option<F>, Option<Result<R>>)>);

    impl<F: FnOnce(&mut CpuStorage, &Layout) -> Result<R>, R> InplaceOp1 for Write<F, R> {
        fn name(&self) -> &'static str {
            "write"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let mut cell = self.0.borrow_mut();
            if let Some(f) = cell.0.take() {
                cell.1 = Some(f(storage, layout));
            }
            Ok(())
        }
    }

    let f = |storage: &mut CpuStorage, layout: &Layout| {
        let dtype = storage.dtype();
        let values = T::elements(storage).ok_or_else(|| no_kernel(dtype))?;
        f(&mut values[extent(layout)])
    };
    let op = Write(RefCell::new((Some(f), None)));
    tensor.inplace_op1(&op)?;
    let (_, result) = op.0.into_inner();
    result.unwrap_or_else(|| Err(Error::failed("nothing was written")))
}

/// A new tensor with the dtype and device of `like`, its memory as it comes.
///
/// # Safety
/// All of it is written before any of it is read.
pub(super) unsafe fn fresh(shape: impl Into<Shape>, like: &Tensor) -> Result<Tensor> {
    // SAFETY: as the caller promises.
    unsafe { fresh_of(shape, like.dtype(), like) }
}

/// A new tensor of `dtype` on the device of `like`, its memory as it comes.
///
/// # Safety
/// As of [`fresh`].
pub(super) unsafe fn fresh_of(
    shape: impl Into<Shape>,
    dtype: DType,
    like: &Tensor,
) -> Result<Tensor> {
    // SAFETY: as the caller promises.
    Ok(unsafe { Tensor::empty(shape, dtype, like.device())? })
}

/// Checks that tensors have one shape and lie in memory without gaps.
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

/// Memory that several threads write to, each in places of its own.
pub(super) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out no more than exclusive slices do, by the contract of `part`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(super) fn new(values: &'a mut [T]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
            borrow: PhantomData,
        }
    }

    /// # Safety
    /// No other part in use may overlap this one.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.len, "a part outside its memory");
        // SAFETY: inside the borrowed slice, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// Rows and their distance for a tensor (.., width) whose last dimension has no gaps.
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

/// Runs an expression with `$type` as the tensor's element type.
macro_rules! each_real {
    ($tensor:expr, $type:ident => $body:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => {
                type $type = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $type = f64;
                $body
            }
            other => Err($crate::kernels::cpu::no_kernel(other)),
        }
    };
}
pub(super) use each_real;

pub(super) fn no_kernel(dtype: DType) -> Error {
    Error::failed(format!("no kernel for {dtype:?}: f32 or f64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_view_is_written_through_and_its_rows_are_known() {
        let whole = Tensor::zeros((3, 2, 4), DType::F32, &Device::Cpu).unwrap();
        let view = whole.narrow(1, 1, 1).unwrap().squeeze(1).unwrap();
        assert_eq!(rows(&view).unwrap(), (3, 4, 8));
        assert_eq!(rows(&whole).unwrap(), (6, 4, 4));
        assert_eq!(rows(&whole.narrow(2, 1, 2).unwrap()).unwrap(), (6, 2, 4));
        assert!(rows(&whole.t().unwrap()).is_err());
        write(&view, |values: &mut [f32]| {
            assert_eq!(values.len(), 20);
            values[19] = 1.0;
            Ok(())
        })
        .unwrap();
        assert_eq!(
            whole.flatten_all().unwrap().to_vec1::<f32>().unwrap()[23],
            1.0
        );
        assert!(read(&view).values::<f64>().is_err());
    }
}
