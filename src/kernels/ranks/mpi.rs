//! The calls into MPI.
//!
//! Handles travel as `usize`: those of MPICH are ints, which a callee reads from the low half of a
//! register or of a slot of the stack, on every 64-bit little-endian system. Bytes alone are moved, by
//! non-blocking calls alone.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use super::library::{Abi, Library, functions};
use crate::error::{Error, Result};

type Handle = usize;

functions! {
    init_thread: c"MPI_Init_thread" (*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int;
    finalize: c"MPI_Finalize" () -> c_int;
    abort: c"MPI_Abort" (Handle, c_int) -> c_int;
    rank: c"MPI_Comm_rank" (Handle, *mut c_int) -> c_int;
    size: c"MPI_Comm_size" (Handle, *mut c_int) -> c_int;
    set_errhandler: c"MPI_Comm_set_errhandler" (Handle, Handle) -> c_int;
    version: c"MPI_Get_library_version" (*mut c_char, *mut c_int) -> c_int;
    error_string: c"MPI_Error_string" (c_int, *mut c_char, *mut c_int) -> c_int;
    isend: c"MPI_Isend" (*const c_void, c_int, Handle, c_int, c_int, Handle, *mut Handle) -> c_int;
    irecv: c"MPI_Irecv" (*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut Handle) -> c_int;
    test: c"MPI_Test" (*mut Handle, *mut c_int, *mut c_void) -> c_int;
}

/// The constants of an ABI.
struct Constants {
    world: Handle,
    byte: Handle,
    errors_return: Handle,
    status_ignore: usize,
    /// The levels "serialized" and "multiple" of thread support.
    levels: (c_int, c_int),
}

impl Constants {
    fn of(library: &Library) -> Result<Self> {
        let address = |name: &CStr| library.symbol(name).map(|symbol| symbol as Handle);
        Ok(match library.abi() {
            Abi::OpenMpi => Self {
                world: address(c"ompi_mpi_comm_world")?,
                byte: address(c"ompi_mpi_byte")?,
                errors_return: address(c"ompi_mpi_errors_return")?,
                status_ignore: 0,
                levels: (2, 3),
            },
            Abi::Mpich => Self {
                world: 0x4400_0000,
                byte: 0x4c00_010d,
                errors_return: 0x5400_0001,
                status_ignore: 1,
                levels: (2, 3),
            },
            Abi::Standard => Self {
                world: 0x101,
                byte: 0x247,
                errors_return: 0x142,
                status_ignore: 0,
                levels: (2048, 4096),
            },
        })
    }
}

/// MPI, initialized. Its calls may come from any thread, one at a time.
pub(super) struct Mpi {
    table: Table,
    constants: Constants,
    pub(super) rank: usize,
    pub(super) size: usize,
    /// The library's own name and version, and the file.
    pub(super) version: String,
}

/// A transfer that has begun.
#[derive(Debug)]
pub(super) struct Request(Handle);

impl Mpi {
    /// Initializes MPI, which waits for all processes of the launch.
    ///
    /// # Errors
    /// If the library lacks a function, has no sufficient thread support, or fails.
    pub(super) fn start(library: &Library) -> Result<Self> {
        let (table, constants) = (Table::load(library.shared())?, Constants::of(library)?);
        let mut mpi = Self {
            table,
            constants,
            rank: 0,
            size: 0,
            version: String::new(),
        };
        let (serialized, multiple) = mpi.constants.levels;
        let (mut count, mut arguments, mut level) = (0, null_mut(), 0);
        // SAFETY: an empty list of arguments is allowed, and all three are there to be written.
        let code = unsafe {
            let arguments = (&raw mut count, &raw mut arguments);
            (mpi.table.init_thread)(arguments.0, arguments.1, multiple, &raw mut level)
        };
        mpi.check("MPI_Init_thread", code)?;
        if level < serialized {
            let name = library.name();
            return Err(Error::input(format!(
                "the MPI library {name} was built without thread support"
            )));
        }
        let Constants {
            world,
            errors_return,
            ..
        } = mpi.constants;
        // SAFETY: both handles are those of the library's ABI.
        let code = unsafe { (mpi.table.set_errhandler)(world, errors_return) };
        mpi.check("MPI_Comm_set_errhandler", code)?;
        mpi.rank = mpi.number("MPI_Comm_rank", mpi.table.rank)?;
        mpi.size = mpi.number("MPI_Comm_size", mpi.table.size)?;
        mpi.version = format!("{} ({})", mpi.read_version(), library.name());
        Ok(mpi)
    }

    fn number(
        &self,
        name: &str,
        call: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    ) -> Result<usize> {
        let mut number = 0;
        // SAFETY: the handle is that of the ABI, and `number` is there to be written.
        let code = unsafe { call(self.constants.world, &raw mut number) };
        self.check(name, code)?;
        Ok(number.unsigned_abs() as usize)
    }

    /// E.g. `Open MPI v4.1.4`.
    fn read_version(&self) -> String {
        let call = |text: *mut c_char, length: *mut c_int| {
            // SAFETY: `text` has room for the 8192 characters that all ABIs allow at most.
            unsafe { (self.table.version)(text, length) }
        };
        let text = text(call);
        let first = text.split([',', '\n']).next().unwrap_or_default();
        let words = first.split_whitespace().filter(|word| *word != "Version:");
        words.collect::<Vec<_>>().join(" ")
    }

    /// Begins to send bytes.
    ///
    /// # Safety
    /// The bytes must stay where they are until the request is done, or until no call of MPI is made
    /// any more.
    pub(super) unsafe fn send(&self, bytes: &[u8], to: usize, tag: c_int) -> Result<Request> {
        let Constants { world, byte, .. } = self.constants;
        let (length, to, mut request) = (count(bytes.len()), to as c_int, 0);
        let from = bytes.as_ptr().cast();
        // SAFETY: the bytes are there, and stay so as the caller says; handles are those of the ABI.
        let code =
            unsafe { (self.table.isend)(from, length, byte, to, tag, world, &raw mut request) };
        self.check("MPI_Isend", code)?;
        Ok(Request(request))
    }

    /// Begins to receive bytes.
    ///
    /// # Safety
    /// So many bytes at `into` must be writable, and neither moved nor used, until the request is done.
    pub(super) unsafe fn receive(
        &self,
        into: *mut u8,
        length: usize,
        from: usize,
        tag: c_int,
    ) -> Result<Request> {
        let Constants { world, byte, .. } = self.constants;
        let (length, from, mut request) = (count(length), from as c_int, 0);
        let into = into.cast();
        // SAFETY: the bytes are writable, as the caller says; handles are those of the ABI.
        let code =
            unsafe { (self.table.irecv)(into, length, byte, from, tag, world, &raw mut request) };
        self.check("MPI_Irecv", code)?;
        Ok(Request(request))
    }

    /// Whether a request is done; it is not asked for again then.
    pub(super) fn is_done(&self, request: &mut Request) -> Result<bool> {
        let mut done = 0;
        let ignore = self.constants.status_ignore as *mut c_void;
        // SAFETY: the request is one that this library made and has not ended, `done` is there to be
        // written, and `ignore` is the ABI's constant for no status.
        let code = unsafe { (self.table.test)(&raw mut request.0, &raw mut done, ignore) };
        self.check("MPI_Test", code)?;
        Ok(done != 0)
    }

    /// Ends MPI, which may wait for the others. No call may follow.
    pub(super) fn finalize(&self) -> Result<()> {
        // SAFETY: MPI is initialized, and the caller ends it once.
        let code = unsafe { (self.table.finalize)() };
        match code {
            0 => Ok(()),
            code => Err(Error::rank(format!("MPI_Finalize failed with code {code}"))),
        }
    }

    /// Asks the launcher to end all processes; may not return.
    pub(super) fn abort(&self, status: u8) {
        // SAFETY: MPI is initialized. A library that is in another call may hang or crash here, which
        // the caller expects.
        unsafe { (self.table.abort)(self.constants.world, status.into()) };
    }

    fn check(&self, call: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let string = |text: *mut c_char, length: *mut c_int| {
            // SAFETY: `text` has room for more than the 1024 characters that the ABIs allow at most.
            unsafe { (self.table.error_string)(code, text, length) }
        };
        Err(Error::rank(format!("{call}: {}", text(string))))
    }
}

/// A text that a call writes.
fn text(call: impl FnOnce(*mut c_char, *mut c_int) -> c_int) -> String {
    let mut text = [0u8; 8193];
    let mut length = 0;
    call(text.as_mut_ptr().cast(), &raw mut length);
    let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
    text.to_string_lossy().trim().to_owned()
}

/// A number of bytes as MPI counts them; what is sent at once is always shorter.
fn count(bytes: usize) -> c_int {
    c_int::try_from(bytes).expect("at most 2^31 - 1 bytes at once")
}
