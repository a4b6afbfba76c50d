//! Kernels as a GPU's driver has them: compiled, loaded and found.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock};

use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, DriverError, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::{Ptx, result, sys as nvrtc};

use super::failed;
use crate::error::{Error, Result};
use crate::io::cache;
use crate::kernels::cuda::images::{self, Target};
use crate::kernels::cuda::module::Module;

/// A GPU's number and a module.
type Key = (usize, Module);

/// Kernels that were launched before; no module is ever unloaded.
static FUNCTIONS: LazyLock<RwLock<HashMap<(Key, &'static str), &'static CudaFunction>>> =
    LazyLock::new(RwLock::default);

/// Modules, each with a lock of its own: to compile one takes seconds, and others need not wait.
static MODULES: LazyLock<Mutex<HashMap<Key, Arc<Loaded>>>> = LazyLock::new(Mutex::default);

type Loaded = Mutex<Option<Arc<CudaModule>>>;

/// A kernel of a module, compiled and loaded where that was not done before.
pub fn function(
    device: &CudaDevice,
    module: &Module,
    kernel: &'static str,
) -> Result<&'static CudaFunction> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let key = (context.ordinal(), *module);
    let functions = FUNCTIONS.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = functions.get(&(key, kernel)) {
        return Ok(function);
    }
    drop(functions);
    let error = failed(kernel);
    context.bind_to_thread().map_err(&error)?;
    let modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = { modules }.entry(key).or_default().clone();
    let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match &*loaded {
        Some(library) => library,
        None => loaded.insert(load(context, module)?),
    };
    let function = library.load_function(kernel).map_err(&error)?;
    // A launch says what it needs; without this it gets 48 KiB at most.
    let most = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let most = context.attribute(most).map_err(&error)?;
    let limit = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(limit, most).map_err(&error)?;
    let mut functions = FUNCTIONS.write().unwrap_or_else(PoisonError::into_inner);
    let made = || &*Box::leak(Box::new(function));
    Ok(functions.entry((key, kernel)).or_insert_with(made))
}

/// Machine code for this very card; PTX where NVRTC does not know the card, or the driver refuses it.
fn load(context: &Arc<CudaContext>, module: &Module) -> Result<Arc<CudaModule>> {
    let error = failed("the device");
    let (major, minor) = context.compute_capability().map_err(error)?;
    let card = (10 * major + minor) as u32;
    let known = architectures()?;
    if known.contains(&card) {
        let image = Ptx::from_binary(image(module, Target::Cubin(card))?);
        match context.load_module(image) {
            Ok(library) => return Ok(library),
            Err(error) if refused(error) => {}
            Err(error) => return Err(failed(&module.key())(error)),
        }
    }
    let older = known.iter().copied().filter(|&known| known <= card).max();
    let older = older.ok_or_else(|| {
        let (major, minor) = version();
        Error::input(format!(
            "NVRTC {major}.{minor} compiles for no card of compute capability {card}"
        ))
        .hint("install the NVRTC of another CUDA toolkit")
    })?;
    let text = String::from_utf8(image(module, Target::Ptx(older))?);
    let text =
        text.map_err(|_| Error::failed(format!("{}: PTX that is not text", module.key())))?;
    let library = context.load_module(Ptx::from_src(text));
    library.map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => newer_than_driver(),
        _ => failed(&module.key())(error),
    })
}

/// Whether a driver does not take an image, rather than that something else went wrong.
fn refused(error: DriverError) -> bool {
    use sys::CUresult;
    matches!(
        error.0,
        CUresult::CUDA_ERROR_INVALID_IMAGE
            | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUresult::CUDA_ERROR_INVALID_SOURCE
            | CUresult::CUDA_ERROR_NOT_SUPPORTED
    )
}

fn newer_than_driver() -> Error {
    let ((major, minor), driver) = (version(), super::version());
    Error::input(format!(
        "NVRTC {major}.{minor} is newer than the NVIDIA driver, which is for CUDA {}.{}",
        driver.0, driver.1
    ))
    .hint(format!(
        "install a newer driver, or the NVRTC of CUDA {}.{}",
        driver.0, driver.1
    ))
}

/// NVRTC's version.
pub fn version() -> (i32, i32) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both numbers are there to be written.
    unsafe { nvrtc::nvrtcVersion(&mut major, &mut minor) };
    (major, minor)
}

/// The compute capabilities that NVRTC makes machine code for.
fn architectures() -> Result<&'static [u32]> {
    static KNOWN: OnceLock<Vec<u32>> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known);
    }
    let error = |error| Error::failed(format!("NVRTC, its architectures: {error}"));
    let mut count = 0;
    // SAFETY: the number is there to be written.
    unsafe { nvrtc::nvrtcGetNumSupportedArchs(&mut count).result() }.map_err(error)?;
    let mut known = vec![0; count.max(0) as usize];
    // SAFETY: there is room for all of them.
    unsafe { nvrtc::nvrtcGetSupportedArchs(known.as_mut_ptr()).result() }.map_err(error)?;
    Ok(KNOWN.get_or_init(|| known.into_iter().map(|card| card as u32).collect()))
}

/// A module compiled, from the cache on disk where it is there and whole.
fn image(module: &Module, target: Target) -> Result<Vec<u8>> {
    let name = images::name(module, target, version());
    let file = cache::root().map(|root| root.join("expo/kernels").join(name));
    if let Some(image) = file.as_deref().and_then(images::read) {
        return Ok(image);
    }
    let image = compile(module, target)?;
    if let Some(file) = file {
        // Without a cache the next start takes longer, no more.
        let _ = images::write(&file, &image);
    }
    Ok(image)
}

struct Program(nvrtc::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by NVRTC, and not used again.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn compile(module: &Module, target: Target) -> Result<Vec<u8>> {
    let broken = |what: &str| Error::failed(format!("kernel {}: {what}", module.key()));
    let text = CString::new(module.text()).map_err(|_| broken("a text with a zero byte"))?;
    let name = CString::new(format!("{}.cu", module.source.name));
    let name = name.map_err(|_| broken("a name with a zero byte"))?;
    let program = result::create_program(&text, Some(&name));
    let program = Program(program.map_err(|error| broken(&error.to_string()))?);
    // SAFETY: the program is NVRTC's own, and its text still there.
    if let Err(error) = unsafe { result::compile_program(program.0, &target.options()) } {
        if error.0 == nvrtc::nvrtcResult::NVRTC_ERROR_BUILTIN_OPERATION_FAILURE {
            let (major, minor) = version();
            let what = format!("NVRTC {major}.{minor} does not find its libnvrtc-builtins");
            return Err(Error::input(what).hint(format!(
                "install all of NVRTC (cuda-nvrtc-{major}-{minor}), or name the directory of \
                 libnvrtc-builtins.so.{major}.{minor} in LD_LIBRARY_PATH"
            )));
        }
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
        let log = String::from_utf8_lossy(&log);
        return Err(broken(&format!("{error}: {}", log.trim_end_matches('\0'))));
    }
    let mut bytes = 0;
    // SAFETY: the program is compiled, and the image gets the room that NVRTC asks for.
    let made = unsafe {
        match target {
            Target::Cubin(_) => nvrtc::nvrtcGetCUBINSize(program.0, &mut bytes),
            Target::Ptx(_) => nvrtc::nvrtcGetPTXSize(program.0, &mut bytes),
        }
        .result()
    };
    let mut image = vec![0u8; bytes];
    // SAFETY: as above.
    let made = made.and_then(|()| unsafe {
        let to = image.as_mut_ptr().cast();
        match target {
            Target::Cubin(_) => nvrtc::nvrtcGetCUBIN(program.0, to),
            Target::Ptx(_) => nvrtc::nvrtcGetPTX(program.0, to),
        }
        .result()
    });
    made.map_err(|error| broken(&error.to_string()))?;
    if let Target::Ptx(_) = target {
        // The zero byte behind a text.
        image.pop();
    }
    Ok(image)
}
