//! CUDA itself: devices, compilation of kernels, launches and matmuls.
//!
//! *Why*: all work goes to one stream per device, in order. So nothing waits for anything but the
//! host, where it reads a result, and candle's events between streams are off.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, DevicePtr, DriverError, LaunchConfig, PushKernelArg,
    result::{memcpy_dtoh_async, memcpy_htod_async},
    sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaStorageSlice, cudarc};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Storage, Tensor, WithDType};
use sha2::{Digest, Sha256};

use super::module::{Arg, Grid, Module, Operand, first_tensor};
use crate::error::{Error, Result};
use crate::kernels::failure::of_device;
use crate::kernels::tensor::Dst;

/// Devices that are open, by number.
static OPEN: Mutex<Option<HashMap<usize, Device>>> = Mutex::new(None);

/// The device of that number, its memory pool set to keep what is freed.
///
/// # Errors
/// If there is no such device.
pub fn open(ordinal: usize) -> Result<Device> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = open.get_or_insert_default();
    if let Some(device) = open.get(&ordinal) {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: everything runs on the device's one stream.
    unsafe { cuda.disable_event_tracking() };
    keep_memory(cuda)?;
    open.insert(ordinal, device.clone());
    Ok(device)
}

/// The number of devices; 0 where there is no driver.
pub fn count() -> usize {
    let count = std::panic::catch_unwind(cudarc::driver::CudaContext::device_count);
    count.map_or(0, |count| count.map_or(0, |n| n.max(0) as usize))
}

fn keep_memory(device: &CudaDevice) -> Result<()> {
    let mut forever = u64::MAX;
    let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
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

/// Waits for all open devices.
pub fn synchronize() -> Result<()> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    for device in open.iter().flat_map(HashMap::values) {
        device.synchronize()?;
    }
    Ok(())
}

/// The most bytes that the pools of all open devices held.
pub fn peak() -> Option<u64> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |device: &Device| {
        let mut peak = 0u64;
        let most = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        let value = std::ptr::from_mut(&mut peak).cast();
        let pool = pool(device.as_cuda_device().ok()?).ok()??;
        // SAFETY: the pool is the device's own, and the attribute is a u64.
        unsafe { sys::cuMemPoolGetAttribute(pool, most, value).result() }.ok()?;
        Some(peak)
    };
    open.as_ref()?.values().map(of).sum()
}

/// Copies `values` to a contiguous tensor, whose elements are of their type and number.
pub fn put<T: WithDType>(values: &[T], tensor: Dst) -> Result<()> {
    let device = of(&tensor, values.len(), T::DTYPE)?;
    let stream = device.cuda_stream();
    // SAFETY: the tensor has as many elements, and pageable memory is read before the call returns.
    unsafe { memcpy_htod_async(address(&tensor)?, values, stream.cu_stream()) }
        .map_err(failed("a copy to the device"))
}

/// The elements of a contiguous tensor, once all work before is done.
pub fn get<T: WithDType>(tensor: &Tensor) -> Result<Vec<T>> {
    let device = of(tensor, tensor.elem_count(), T::DTYPE)?;
    let stream = device.cuda_stream();
    let mut values = vec![T::zero(); tensor.elem_count()];
    let error = failed("a copy from the device");
    // SAFETY: as many elements, and nobody looks at them before the stream is through.
    unsafe { memcpy_dtoh_async(&mut values, address(tensor)?, stream.cu_stream()) }
        .map_err(&error)?;
    stream.synchronize().map_err(&error)?;
    Ok(values)
}

fn of(tensor: &Tensor, count: usize, dtype: DType) -> Result<&CudaDevice> {
    if !tensor.is_contiguous() || tensor.elem_count() != count || tensor.dtype() != dtype {
        let dims = tensor.dims();
        return Err(Error::failed(format!(
            "a copy of {count} {dtype:?} and {dims:?}"
        )));
    }
    let device = tensor.device().as_cuda_device()?;
    let stream = device.cuda_stream();
    stream
        .context()
        .bind_to_thread()
        .map_err(failed("the device"))?;
    Ok(device)
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
pub fn launch(module: &Module, kernel: &str, grid: Grid, args: &[Arg]) -> Result<()> {
    enum Value {
        Address(u64),
        Int(i64),
        Float(f32),
        Double(f64),
    }
    let device = first_tensor(args)?.device().as_cuda_device()?;
    let function = function(device, module, kernel)?;
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
    let mut builder = stream.launch_builder(&function);
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
    use cudarc::cublas::{result::gemm_ex, sys as blas};
    let cuda = device.as_cuda_device()?;
    let handle = cuda.cublas_handle();
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
    done.map_err(|error| Error::failed(format!("CUDA, a product of {shape:?}: {error:?}")))
}

/// What is loaded, by device and module, and of that by kernel.
static LOADED: Mutex<Option<HashMap<(usize, String), Loaded>>> = Mutex::new(None);

struct Loaded {
    library: Arc<CudaModule>,
    kernels: HashMap<String, CudaFunction>,
}

fn function(device: &CudaDevice, module: &Module, kernel: &str) -> Result<CudaFunction> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    let loaded = match loaded.entry((context.ordinal(), module.key())) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let error = failed("the device");
            let ptx = compile(module, context.compute_capability().map_err(error)?)?;
            let library = context.load_module(Ptx::from_src(ptx));
            entry.insert(Loaded {
                library: library.map_err(failed(&module.key()))?,
                kernels: HashMap::new(),
            })
        }
    };
    if let Some(function) = loaded.kernels.get(kernel) {
        return Ok(function.clone());
    }
    let error = failed(kernel);
    let function = loaded.library.load_function(kernel).map_err(&error)?;
    // A launch says what it needs; without this it gets 48 KiB at most.
    let most = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let most = context.attribute(most).map_err(&error)?;
    let limit = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(limit, most).map_err(&error)?;
    loaded.kernels.insert(kernel.to_owned(), function.clone());
    Ok(function)
}

/// The module as PTX for a compute capability, from the cache on disk where it is there.
fn compile(module: &Module, (major, minor): (i32, i32)) -> Result<String> {
    let options = vec![
        "--std=c++17".to_owned(),
        format!("--gpu-architecture=compute_{major}{minor}"),
    ];
    let text = module.text();
    let mut hasher = Sha256::new();
    let (mut nvrtc, mut minor) = (0, 0);
    // SAFETY: both numbers are there to be written.
    unsafe { cudarc::nvrtc::sys::nvrtcVersion(&mut nvrtc, &mut minor) };
    for part in [&text, &format!("{options:?} nvrtc {nvrtc}.{minor}")] {
        hasher.update(part);
        hasher.update([0]);
    }
    let file = cache().map(|folder| folder.join(format!("{:x}.ptx", hasher.finalize())));
    if let Some(file) = &file
        && let Ok(ptx) = std::fs::read_to_string(file)
    {
        return Ok(ptx);
    }
    let options = CompileOptions {
        options,
        name: Some(format!("{}.cu", module.source.name)),
        ..CompileOptions::default()
    };
    let ptx = compile_ptx_with_opts(&text, options).map_err(|error| {
        let said = match error {
            cudarc::nvrtc::CompileError::CompileError { log, .. } => {
                log.to_string_lossy().into_owned()
            }
            other => format!("{other:?}"),
        };
        Error::failed(format!("kernel {}: {said}", module.key()))
    })?;
    let ptx = ptx.to_src();
    if let Some(file) = file {
        // Without a cache the next start takes a second longer, no more.
        let _ = keep(&file, &ptx);
    }
    Ok(ptx)
}

/// The directory of compiled kernels.
fn cache() -> Option<PathBuf> {
    Some(crate::io::cache::root()?.join("expo/kernels"))
}

/// Under its name only when it is whole: several runs may start at once.
fn keep(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(file);
    std::fs::create_dir_all(folder)?;
    let mut work = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut work, text.as_bytes())?;
    work.persist(file)?;
    Ok(())
}

fn failed(what: &str) -> impl Fn(DriverError) -> Error {
    move |error| of_device(format!("CUDA, {what}: {error}"))
}
