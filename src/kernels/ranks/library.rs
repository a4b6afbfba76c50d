//! An MPI library, opened at run time, and how libraries are opened.
//!
//! *Why*: one binary without MPI at build time serves Open MPI, MPICH and its kin, and any library of
//! the ABI that MPI 5 standardizes.

use std::ffi::{CStr, c_void};

use crate::error::{Error, Result};

/// The binary interface of a library: the values of its handles and constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// Open MPI: handles are addresses of its symbols.
    OpenMpi,
    /// MPICH, Intel MPI, MVAPICH: handles are ints.
    Mpich,
    /// The standard ABI of MPI 5.
    Standard,
}

/// A shared library that is open. It stays loaded until the process ends.
#[derive(Debug)]
pub(super) struct Shared {
    /// As `dlopen` returned it.
    address: usize,
    /// As it was asked for.
    pub(super) name: String,
}

impl Shared {
    /// Opens a library by path or by name; else says why not.
    pub(super) fn open(name: &str) -> std::result::Result<Self, String> {
        let address = load(name)?;
        let name = name.to_owned();
        Ok(Self { address, name })
    }

    /// The address of a symbol that must be there.
    pub(super) fn symbol(&self, name: &CStr) -> Result<*mut c_void> {
        self.find(name).ok_or_else(|| {
            let name = name.to_string_lossy();
            Error::input(format!("the library {} has no {name}", self.name))
        })
    }

    #[cfg(unix)]
    fn find(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the library is loaded and stays so, and the name ends with 0.
        let address = unsafe { libc::dlsym(self.address as *mut c_void, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }

    #[cfg(not(unix))]
    fn find(&self, _name: &CStr) -> Option<*mut c_void> {
        None
    }
}

/// A table of functions of a library, whose types are those of its header: how each is called here, its name, its
/// arguments and what it returns.
macro_rules! functions {
    ($($field:ident: $name:literal ($($argument:ty),*) -> $out:ty;)*) => {
        /// The functions that are called.
        #[derive(Debug)]
        struct Table { $($field: unsafe extern "C" fn($($argument),*) -> $out,)* }

        impl Table {
            fn load(library: &$crate::kernels::ranks::library::Shared) -> Result<Self> {
                Ok(Self { $($field: {
                    let address = library.symbol($name)?;
                    // SAFETY: the library's header gives the function this type.
                    unsafe {
                        std::mem::transmute::<
                            *mut c_void,
                            unsafe extern "C" fn($($argument),*) -> $out
                        >(address)
                    }
                },)* })
            }
        }
    };
}
pub(super) use functions;

/// An MPI library that is open.
#[derive(Debug)]
pub struct Library {
    shared: Shared,
    abi: Abi,
}

impl Library {
    /// Opens the first of these files that is an MPI library, by path or by name.
    ///
    /// # Errors
    /// With what the loader said of each of them.
    pub fn open(names: &[String]) -> Result<Self> {
        let mut failures = Vec::new();
        for name in names {
            match Shared::open(name).and_then(Self::of) {
                Ok(library) => return Ok(library),
                Err(failure) => failures.push(failure),
            }
        }
        let failures = failures.join("; ");
        Err(Error::input(format!("no MPI library: {failures}")))
    }

    fn of(shared: Shared) -> std::result::Result<Self, String> {
        let name = &shared.name;
        let file = std::fs::canonicalize(name).unwrap_or_else(|_| name.into());
        if shared.find(c"MPI_Init_thread").is_none() {
            return Err(format!("{name}: no MPI library"));
        }
        // MPICH 5 has the functions of the standard ABI in its other library, too.
        let abi = if shared.find(c"ompi_mpi_comm_world").is_some() {
            Abi::OpenMpi
        } else if file.to_string_lossy().contains("libmpi_abi") {
            Abi::Standard
        } else {
            Abi::Mpich
        };
        Ok(Self { shared, abi })
    }

    /// As it was asked for, e.g. `libmpi.so.40`.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its binary interface.
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// The library itself.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The address of a symbol that must be there.
    pub(super) fn symbol(&self, name: &CStr) -> Result<*mut c_void> {
        self.shared.symbol(name)
    }
}

/// Where handles fit the way in which they are passed.
#[cfg(all(unix, target_pointer_width = "64", target_endian = "little"))]
fn load(name: &str) -> std::result::Result<usize, String> {
    let path = std::ffi::CString::new(name).map_err(|_| format!("{name:?}: no file name"))?;
    // Global, or the plugins that Open MPI loads would not find its symbols.
    // SAFETY: the name ends with 0. Loading runs the library's own constructors, as starting a program
    // that links to it does.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !library.is_null() {
        return Ok(library as usize);
    }
    // SAFETY: no argument; the text is copied before another call of the loader.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return Err(format!("{name}: cannot be opened"));
    }
    // SAFETY: it is not null, so it is a string that ends with 0.
    let text = unsafe { CStr::from_ptr(text) };
    Err(text.to_string_lossy().into_owned())
}

#[cfg(not(all(unix, target_pointer_width = "64", target_endian = "little")))]
fn load(name: &str) -> std::result::Result<usize, String> {
    Err(format!(
        "{name}: this system has no library for several ranks that expo can use"
    ))
}

/// Ends the process at once: no destructors, no handlers.
#[cfg(unix)]
pub(super) fn leave(status: u8) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status.into()) }
}

/// Ends the thread: nothing of several ranks runs on this system.
#[cfg(not(unix))]
pub(super) fn leave(status: u8) -> ! {
    panic!("ends with status {status}")
}
