//! A GPU's memory: the driver's pool, which allocations come from, and what is left.

use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::sys::{self, CUmemPool_attribute};

use super::failed;
use crate::error::Result;
use crate::kernels::failure::Memory;

/// Lets the device's pool keep what is freed, for the next step.
pub fn keep_freed(device: &CudaDevice) -> Result<()> {
    let mut forever = u64::MAX;
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    match pool(device)? {
        // SAFETY: the pool is the device's own, and the attribute is a u64.
        Some(pool) => unsafe {
            let value = std::ptr::from_mut(&mut forever).cast();
            sys::cuMemPoolSetAttribute(pool, threshold, value).result()
        }
        .map_err(failed("the memory pool")),
        None => Ok(()),
    }
}

/// The most bytes that the device's pool held.
pub fn peak(device: &CudaDevice) -> Option<u64> {
    number(device, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)
}

/// What is held and free now.
pub fn now(device: &CudaDevice) -> Option<Memory> {
    let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
    let held = number(
        device,
        CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT,
    )?;
    let kept = number(
        device,
        CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT,
    )?;
    Some(Memory {
        held,
        // What the pool keeps is not free to others, but to us.
        free: free as u64 + kept.saturating_sub(held),
        total: total as u64,
    })
}

fn number(device: &CudaDevice, attribute: CUmemPool_attribute) -> Option<u64> {
    let pool = pool(device).ok()??;
    let mut number = 0u64;
    let value = std::ptr::from_mut(&mut number).cast();
    // SAFETY: the pool is the device's own, and the attribute is a u64.
    unsafe { sys::cuMemPoolGetAttribute(pool, attribute, value).result() }.ok()?;
    Some(number)
}

fn pool(device: &CudaDevice) -> Result<Option<sys::CUmemoryPool>> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(None);
    }
    let mut pool = std::ptr::null_mut();
    // SAFETY: `pool` is there to be written.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result() }
        .map_err(failed("the memory pool"))?;
    Ok(Some(pool))
}
