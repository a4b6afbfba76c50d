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
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Storage, Tensor};

use super::real::Element;
use crate::error::{Error, Result};
use crate::kernels::tensor::Dst;

/// A tensor to read.
pub struct Read<'a, G: Deref<Target = Storage>> {
    guard: G,
    layout: &'a Layout,
}

/// Locks a tensor's memory for reading.
pub fn read(tensor: &Tensor) -> Read<'_, impl Deref<Target = Storage>> {
    let (guard, layout) = tensor.storage_and_layout();
    Read { guard, layout }
}

impl<G: Deref<Target = Storage>> Read<'_, G> {
    /// The memory from the tensor's first element to its last.
    ///
    /// # Errors
    /// If it holds another type or lies on another device.
    pub fn values<T: Element>(&self) -> Result<&[T]> {
        match &*self.guard {
            Storage::Cpu(storage) => Ok(&storage.as_slice::<T>()?[extent(self.layout)]),
            _ => Err(Error::failed(
                "a kernel for host memory got a tensor elsewhere",
            )),
        }
    }

    /// The ids of a contiguous u32 tensor.
    pub fn ids(&self) -> Result<&[u32]> {
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
pub fn write<T: Element, R>(tensor: Dst, f: impl FnOnce(&mut [T]) -> Result<R>) -> Result<R> {
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

/// Memory that several threads write to, each in places of its own.
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out no more than exclusive slices do, by the contract of `part`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub fn new(values: &'a mut [T]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
            borrow: PhantomData,
        }
    }

    /// # Safety
    /// No other part in use may overlap this one.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.len, "a part outside its memory");
        // SAFETY: inside the borrowed slice, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
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
            other => Err($crate::kernels::cpu::host::no_kernel(other)),
        }
    };
}
pub(super) use each_real;

pub fn no_kernel(dtype: DType) -> Error {
    Error::failed(format!("no kernel for {dtype:?}: f32 or f64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_view_is_written_through() {
        let mut whole = Tensor::zeros((3, 2, 4), DType::F32, &Device::Cpu).unwrap();
        let view = whole.narrow(1, 1, 1).unwrap().squeeze(1).unwrap();
        let dst = Dst::view(&mut whole, |x| x.narrow(1, 1, 1)?.squeeze(1)).unwrap();
        write(dst, |values: &mut [f32]| {
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
