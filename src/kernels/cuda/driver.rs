//! CUDA itself: devices, launches, matmuls and copies.
//!
//! Needs a driver for the CUDA version that NVRTC is of, and a card of compute capability 8.0 or later.
//!
//! *Why*: all work goes to one stream per device, in order. So nothing waits for anything but the
//! host, where it reads a result, and candle's events between streams are off.

mod functions;
mod memory;
mod staging;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys as blas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg,
    result::{device, init, memcpy_dtoh_async},
    sys,
};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Storage, Tensor, WithDType};

use super::module::{Arg, Grid, Module, Operand, first_tensor};
use crate::error::{Error, Result};
use crate::kernels::failure::{Memory, ask_memory, of_device};
use crate::kernels::tensor::Dst;
use staging::Staging;

/// The oldest cards that have what kernels take: bf16 in tensor cores, and `cp.async`.
const OLDEST: (i32, i32) = (8, 0);

/// Bytes that cuBLAS may work in: what it recommends for the cards that want most.
const WORKSPACE: usize = 32 << 20;

/// A device that is open.
struct Gpu {
    device: Device,
    staging: Mutex<Staging>,
    /// cuBLAS's, in our pool: so it counts in the peak, and is the same for every product.
    _workspace: CudaSlice<u8>,
}

/// Devices that are open, by number.
static OPEN: Mutex<BTreeMap<usize, Arc<Gpu>>> = Mutex::new(BTreeMap::new());

/// The device of that number, its memory pool set to keep what is freed.
///
/// # Errors
/// If there is no such device, its driver or the device itself is too old, or the environment asks for
/// products that are not exact.
pub fn open(ordinal: usize) -> Result<Device> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = open.get(&ordinal) {
        return Ok(gpu.device.clone());
    }
    init().map_err(failed("the driver"))?;
    check_driver()?;
    check_environment()?;
    check_card(ordinal)?;
    ask_memory(memory);
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: everything runs on the device's one stream.
    unsafe { cuda.disable_event_tracking() };
    memory::keep_freed(cuda)?;
    let stream = cuda.cuda_stream();
    let staging = Staging::new(&stream).map_err(failed("memory for copies"))?;
    let gpu = Gpu {
        staging: Mutex::new(staging),
        _workspace: set_products(cuda)?,
        device: device.clone(),
    };
    open.insert(ordinal, Arc::new(gpu));
    Ok(device)
}

/// # Errors
/// If the driver is for an earlier CUDA than this build.
fn check_driver() -> Result<()> {
    let ((major, minor), (needed, _)) = (version(), functions::version());
    if major >= needed {
        return Ok(());
    }
    let what = format!(
        "the NVIDIA driver is for CUDA {major}.{minor}, and this build of expo needs CUDA {needed}.0"
    );
    Err(Error::input(what).hint("valid: a driver of version 580 or later for CUDA 13; or the CPU"))
}

/// # Errors
/// If cuBLAS would round the operands of f32 products to TF32.
fn check_environment() -> Result<()> {
    const NAME: &str = "NVIDIA_TF32_OVERRIDE";
    match std::env::var(NAME) {
        Ok(value) if !["", "0"].contains(&value.trim()) => {
            let what = format!("{NAME}={value} makes f32 matmuls inexact");
            Err(Error::input(what).hint("unset it, or set it to 0"))
        }
        _ => Ok(()),
    }
}

/// # Errors
/// If the card is older than kernels are written for.
fn check_card(ordinal: usize) -> Result<()> {
    use sys::CUdevice_attribute as Attribute;
    let error = failed("the device");
    let card = device::get(ordinal as i32).map_err(&error)?;
    // SAFETY: the driver's own number of a device.
    let number = |attribute| unsafe { device::get_attribute(card, attribute) }.map_err(&error);
    let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    if (major, minor) >= OLDEST {
        return Ok(());
    }
    let name = device::get_name(card).map_err(&error)?;
    let what = format!("GPU {ordinal}, {name}, has compute capability {major}.{minor}");
    Err(Error::input(what).hint(format!(
        "valid: {}.{} or later, as of an A100 or an RTX 30; or the CPU",
        OLDEST.0, OLDEST.1
    )))
}

/// Makes cuBLAS sum in f32 throughout, also where several blocks share a sum, in memory of ours.
fn set_products(device: &CudaDevice) -> Result<CudaSlice<u8>> {
    let stream = device.cuda_stream();
    let handle = *device.cublas_handle().handle();
    // SAFETY: it is memory to work in, of which nothing is read before it is written.
    let workspace =
        unsafe { stream.alloc::<u8>(WORKSPACE) }.map_err(failed("cuBLAS's workspace"))?;
    let mode = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
    let address = workspace.device_ptr(&stream).0 as *mut c_void;
    // SAFETY: the handle is the device's own, and the workspace lives as long as it.
    let set = unsafe {
        let set = blas::cublasSetMathMode(handle, mode).result();
        set.and_then(|()| blas::cublasSetWorkspace_v2(handle, address, WORKSPACE).result())
    };
    set.map_err(|error| Error::failed(format!("cuBLAS: {error:?}")))?;
    Ok(workspace)
}

/// The CUDA version that the driver is for.
fn version() -> (i32, i32) {
    let mut version = 0;
    // SAFETY: the number is there to be written.
    unsafe { sys::cuDriverGetVersion(&mut version) };
    (version / 1000, version % 1000 / 10)
}

/// The number of devices.
///
/// # Errors
/// If there is no driver, or it finds no device.
pub fn count() -> Result<usize> {
    let count = CudaContext::device_count().map_err(failed("the driver"))?;
    Ok(count.max(0) as usize)
}

/// What results depend on: the card, its multiprocessors and cuBLAS.
pub fn kind(device: &Device) -> Result<String> {
    let cuda = device.as_cuda_device()?;
    let (stream, error) = (cuda.cuda_stream(), failed("the device"));
    let context = stream.context();
    let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let count = context.attribute(count).map_err(&error)?;
    let name = context.name().map_err(error)?;
    let (handle, mut version) = (cuda.cublas_handle(), 0);
    // SAFETY: the handle is the device's own, and the number there to be written.
    let got = unsafe { blas::cublasGetVersion_v2(*handle.handle(), &mut version).result() };
    got.map_err(|error| Error::failed(format!("cuBLAS: {error:?}")))?;
    let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
    Ok(format!(
        "{name}, {count} multiprocessors, cuBLAS {major}.{minor}.{patch}"
    ))
}

/// Waits for all open devices.
pub fn synchronize() -> Result<()> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    for gpu in open.values() {
        gpu.device.synchronize()?;
    }
    Ok(())
}

/// The stream of a device, as the driver knows it; the device is bound to this thread.
pub fn stream(device: &Device) -> Result<u64> {
    Ok(bound(device)?.cu_stream() as u64)
}

/// Whether a device has done all that it was given.
pub fn is_idle(device: &Device) -> Result<bool> {
    let stream = bound(device)?.cu_stream();
    // SAFETY: the stream is the device's own.
    match unsafe { sys::cuStreamQuery(stream) } {
        sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
        state => state.result().map(|()| true).map_err(failed("the device")),
    }
}

/// The most bytes that the pools of all open devices held.
pub fn peak() -> Option<u64> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut peaks = open.values().map(|gpu| {
        let device = gpu.device.as_cuda_device().ok()?;
        memory::peak(device)
    });
    let first = peaks.next()?;
    std::iter::once(first).chain(peaks).sum()
}

/// The memory of the first open device.
fn memory() -> Option<Memory> {
    // While a device is being opened there is none.
    let open = OPEN.try_lock().ok()?;
    let device = open.values().next()?.device.as_cuda_device().ok()?;
    memory::now(device)
}

/// Copies `values` to a contiguous tensor, whose elements are of their type and number.
pub fn put<T: WithDType>(values: &[T], tensor: Dst) -> Result<()> {
    let stream = of(&tensor, values.len(), T::DTYPE)?;
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let gpu = { open }.get(&stream.context().ordinal()).cloned();
    let gpu = gpu.ok_or_else(|| Error::failed("a tensor of a device that is not open"))?;
    let mut staging = gpu.staging.lock().unwrap_or_else(PoisonError::into_inner);
    let start = values.as_ptr().cast();
    // SAFETY: the values' own memory, without gaps; the tensor has as many elements.
    unsafe {
        let bytes = std::slice::from_raw_parts(start, size_of_val(values));
        staging.copy(&stream, bytes, address(&tensor)?)
    }
    .map_err(failed("a copy to the device"))
}

/// The elements of a contiguous tensor, once all work before is done.
pub fn get<T: WithDType>(tensor: &Tensor) -> Result<Vec<T>> {
    let stream = of(tensor, tensor.elem_count(), T::DTYPE)?;
    let mut values = vec![T::zero(); tensor.elem_count()];
    if values.is_empty() {
        return Ok(values);
    }
    let error = failed("a copy from the device");
    // SAFETY: as many elements, and nobody looks at them before the stream is through.
    unsafe { memcpy_dtoh_async(&mut values, address(tensor)?, stream.cu_stream()) }
        .map_err(&error)?;
    stream.synchronize().map_err(&error)?;
    Ok(values)
}

/// The stream of a contiguous tensor of `count` elements, its context bound to this thread.
fn of(tensor: &Tensor, count: usize, dtype: DType) -> Result<Arc<CudaStream>> {
    if !tensor.is_contiguous() || tensor.elem_count() != count || tensor.dtype() != dtype {
        let dims = tensor.dims();
        return Err(Error::failed(format!(
            "a copy of {count} {dtype:?} and {dims:?}"
        )));
    }
    bound(tensor.device())
}

/// A device's stream, its context bound to this thread: calls of CUDA that name no stream go to the
/// context that is bound.
fn bound(device: &Device) -> Result<Arc<CudaStream>> {
    let stream = device.as_cuda_device()?.cuda_stream();
    stream
        .context()
        .bind_to_thread()
        .map_err(failed("the device"))?;
    Ok(stream)
}

/// Where a tensor's first element is on its device.
pub fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(Error::failed("a CUDA kernel got a tensor in host memory"));
    };
    let offset = layout.start_offset() * tensor.dtype().size_in_bytes();
    Ok(start(storage)? + offset as u64)
}

/// Where a storage begins on its device.
fn start(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    // Without events nothing is recorded where the guard of an address is dropped.
    Ok(match &storage.slice {
        CudaStorageSlice::U8(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::U32(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::I16(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::I64(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::BF16(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::F32(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::F64(x) => x.device_ptr(&stream).0,
        _ => return Err(Error::failed("a dtype that no kernel takes")),
    })
}

/// Runs a kernel after everything before it in the device's stream.
pub fn launch(module: &Module, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
    enum Value {
        Address(u64),
        Int(i64),
        Float(f32),
        Double(f64),
    }
    let device = first_tensor(args)?.device().as_cuda_device()?;
    let function = functions::function(device, module, kernel)?;
    let value = |arg: &Arg| -> Result<Value> {
        Ok(match arg {
            Arg::Tensor(tensor) => Value::Address(address(tensor)?),
            Arg::Nothing => Value::Address(0),
            Arg::Int(n) => Value::Int(*n as i64),
            Arg::Float(x) => Value::Float(*x as f32),
            Arg::Double(x) => Value::Double(*x),
        })
    };
    let values: Vec<Value> = args.iter().map(value).collect::<Result<_>>()?;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(function);
    for value in &values {
        match value {
            Value::Address(x) => builder.arg(x),
            Value::Int(x) => builder.arg(x),
            Value::Float(x) => builder.arg(x),
            Value::Double(x) => builder.arg(x),
        };
    }
    let [x, y, z] = grid.blocks;
    let config = LaunchConfig {
        grid_dim: (x, y, z),
        block_dim: (grid.threads, 1, 1),
        shared_mem_bytes: grid.shared as u32,
    };
    // SAFETY: the operation checked its operands, and the emulator's tests that the kernel takes these
    // arguments and stays inside them.
    let launched = unsafe { builder.launch(config) };
    launched.map(|_| ()).map_err(failed(kernel))
}

/// `c` (m, n) = or += `a` (m, k) times `b` (k, n), all by columns.
pub fn product(
    device: &Device,
    [a, b, c]: [Operand; 3],
    shape: [usize; 3],
    add: bool,
) -> Result<()> {
    let _stream = bound(device)?;
    let handle = device.as_cuda_device()?.cublas_handle();
    let dtype = |x: &Operand| match x.dtype {
        DType::BF16 => blas::cudaDataType::CUDA_R_16BF,
        _ => blas::cudaDataType::CUDA_R_32F,
    };
    let operation = |x: &Operand| match x.transposed {
        true => blas::cublasOperation_t::CUBLAS_OP_T,
        false => blas::cublasOperation_t::CUBLAS_OP_N,
    };
    let int = |n: usize| {
        i32::try_from(n).map_err(|_| Error::failed(format!("a product with a side of {n}")))
    };
    let [m, n, k] = shape;
    let (one, share) = (1f32, if add { 1f32 } else { 0f32 });
    let number = |x: &f32| std::ptr::from_ref(x).cast::<c_void>();
    // SAFETY: the operands' extents were checked against the shape; alpha and beta are f32, as the
    // sums are.
    let done = unsafe {
        gemm_ex(
            *handle.handle(),
            operation(&a),
            operation(&b),
            int(m)?,
            int(n)?,
            int(k)?,
            number(&one),
            a.address as *const c_void,
            dtype(&a),
            int(a.leading)?,
            b.address as *const c_void,
            dtype(&b),
            int(b.leading)?,
            number(&share),
            c.address as *mut c_void,
            dtype(&c),
            int(c.leading)?,
            blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    };
    done.map_err(|error| Error::failed(format!("CUDA, a matmul of {shape:?}: {error:?}")))
}

fn failed(what: &str) -> impl Fn(DriverError) -> Error {
    move |error| of_device(format!("CUDA, {what}: {error}"))
}
