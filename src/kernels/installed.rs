//! The NVIDIA driver that this machine has, asked without linking to CUDA.
//!
//! *Why*: a build without CUDA starts anywhere, and has to know whether the build with CUDA would find a
//! GPU here.

/// What the NVIDIA driver of this machine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// There is none, or this is not Linux.
    Missing,
    /// It cannot be initialized: the `CUresult` of `cuInit` or of a call after it, 100 where there is no
    /// GPU.
    Failed(i32),
    /// It works.
    Works {
        /// The CUDA version that it supports, e.g. 13000 for 13.0.
        cuda: i32,
        /// The GPUs that it has.
        gpus: i32,
    },
}

/// Loads the driver's library and initializes it. Prints nothing.
#[cfg(target_os = "linux")]
pub fn driver() -> Driver {
    use std::ffi::{CStr, c_void};

    type Init = unsafe extern "C" fn(flags: u32) -> i32;
    type Number = unsafe extern "C" fn(number: *mut i32) -> i32;

    // SAFETY: the name ends with 0. Loading runs the driver's own constructors, as starting a program
    // that links to it does. It stays loaded.
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return Driver::Missing;
    }
    let symbol = |name: &CStr| -> Option<*mut c_void> {
        // SAFETY: the library is loaded and the name ends with 0.
        let address = unsafe { libc::dlsym(library, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    };
    let number = |name: &CStr| -> Option<Result<i32, i32>> {
        // SAFETY: both functions that are asked for, cuDriverGetVersion and cuDeviceGetCount, have this
        // type in every version of CUDA.
        let call = unsafe { std::mem::transmute::<*mut c_void, Number>(symbol(name)?) };
        let mut number = 0;
        // SAFETY: `number` is there to be written.
        match unsafe { call(&raw mut number) } {
            0 => Some(Ok(number)),
            error => Some(Err(error)),
        }
    };
    let Some(init) = symbol(c"cuInit") else {
        return Driver::Missing;
    };
    // SAFETY: cuInit has this type in every version of CUDA.
    let init = unsafe { std::mem::transmute::<*mut c_void, Init>(init) };
    // SAFETY: 0 is the only flag.
    match unsafe { init(0) } {
        0 => {}
        error => return Driver::Failed(error),
    }
    match (number(c"cuDriverGetVersion"), number(c"cuDeviceGetCount")) {
        (Some(Ok(cuda)), Some(Ok(gpus))) => Driver::Works { cuda, gpus },
        (Some(Err(error)), _) | (_, Some(Err(error))) => Driver::Failed(error),
        (None, _) | (_, None) => Driver::Missing,
    }
}

/// No driver is looked for on this system.
#[cfg(not(target_os = "linux"))]
pub fn driver() -> Driver {
    Driver::Missing
}
