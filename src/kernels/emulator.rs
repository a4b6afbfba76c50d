//! CUDA kernels on the CPU: their text compiled as C++ with `emulator/emulator.h`, loaded and called.
//!
//! Every launch runs forward and in reverse order of threads; a difference is a race.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::bf16;
use sha2::{Digest, Sha256};

use super::cuda::module::{Arg, Grid, Module, Operand};
use super::cuda::ptx_tests;
use super::testing::{assert_near, here, on};
use crate::error::{Error, Result};

const HEADER: &str = include_str!("emulator/emulator.h");

const SKIPPED: &[u8] = b"skipped: no C++ compiler (c++) for the kernels' text\n";

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread's operations in host memory run the kernels' text.
pub fn is_on() -> bool {
    ON.get()
}

/// Where tests of kernels make their tensors: the GPU that `EXPO_TEST_GPU` names, in a build with CUDA, and
/// without it host memory. `None`, and a line that says so, where neither serves.
pub fn device() -> Option<Device> {
    #[cfg(feature = "cuda")]
    if let Some(number) = std::env::var_os("EXPO_TEST_GPU") {
        let number = number.to_str().and_then(|number| number.parse().ok());
        return Some(super::cuda::driver::open(number.expect("a GPU's number")).expect("a GPU"));
    }
    if compiler().is_none() {
        let _ = std::io::stderr().write_all(SKIPPED);
        return None;
    }
    Some(Device::Cpu)
}

/// Runs `f` with every operation on tensors of `device`, which is [`device()`], as on a GPU.
pub fn scope_on<R>(device: &Device, f: impl FnOnce() -> R) -> R {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON.set(false);
        }
    }
    let _off = Off;
    ON.set(device.is_cpu());
    f()
}

/// Asserts that what `f` makes of copies of `inputs` by the kernels' text is what the CPU's
/// kernels make of the same numbers in f64, to `tolerance` of the largest magnitude of each output.
pub fn compare(
    what: &str,
    inputs: &[Tensor],
    tolerance: f64,
    f: impl Fn(&[Tensor]) -> Vec<Tensor>,
) {
    let Some(device) = device() else { return };
    let copies = |dtype: &dyn Fn(DType) -> DType| -> Vec<Tensor> {
        let copy = |x: &Tensor| x.to_dtype(dtype(x.dtype())).unwrap().copy().unwrap();
        inputs.iter().map(copy).collect()
    };
    let exact = copies(&|dtype| if dtype.is_float() { DType::F64 } else { dtype });
    let there = |x: Tensor| on(&device, &x);
    let inputs: Vec<Tensor> = copies(&|dtype| dtype).into_iter().map(there).collect();
    let got = scope_on(&device, || f(&inputs));
    for (at, (got, want)) in got.iter().zip(f(&exact)).enumerate() {
        assert_near(
            &here(got),
            &want,
            tolerance,
            &format!("{what}, output {at}"),
        );
    }
}

fn compiler() -> Option<PathBuf> {
    let name = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let works = Command::new(&name).arg("--version").output();
    works
        .is_ok_and(|out| out.status.success())
        .then(|| name.into())
}

type Run =
    unsafe extern "C" fn(*const c_uint, c_uint, usize, *mut *mut c_void, c_int) -> *const c_char;

/// Handles of loaded libraries by module; the lock is also why one kernel runs at a time, as they
/// share their blocks' state.
static LOADED: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);

pub(super) fn launch(module: &Module, kernel: &str, grid: Grid, args: &[Arg]) -> Result<()> {
    ptx_tests::check(module, grid.threads)?;
    let places = Places::of(args)?;
    if ptx_tests::is_on() {
        let values = |base: &dyn Fn(usize) -> u64| places.values(args, base);
        let made = ptx_tests::simulate(module, kernel, grid, values, &places.bytes())?;
        places.write(&made);
        return Ok(());
    }
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    let key = module.key();
    let library = match loaded.get(&key) {
        Some(&library) => library,
        None => {
            let library = load(&compile(module)?)?;
            loaded.insert(key, library);
            library
        }
    };
    let run = function(library, kernel)?;
    let forward = call(run, kernel, grid, args, &places, false)?;
    if forward != call(run, kernel, grid, args, &places, true)? {
        return Err(Error::failed(format!(
            "{kernel}: its result depends on the order of threads"
        )));
    }
    places.write(&forward);
    Ok(())
}

/// Runs a kernel on copies of its tensors' memory, and gives what is in them then.
fn call(
    run: Run,
    kernel: &str,
    grid: Grid,
    args: &[Arg],
    places: &Places,
    reversed: bool,
) -> Result<Vec<Vec<u8>>> {
    let mut copies: Vec<Guarded> = places.bytes().into_iter().map(Guarded::copy).collect();
    let bases: Vec<u64> = copies.iter_mut().map(Guarded::address).collect();
    let mut values = places.values(args, &|index| bases[index])?;
    let mut pointers: Vec<*mut c_void> = values
        .iter_mut()
        .map(|value| std::ptr::from_mut(value).cast())
        .collect();
    // SAFETY: the kernel reads its arguments as the launch gives them, and their memory is there; that
    // it stays inside it is what the guards are for.
    let wrong = unsafe {
        run(
            grid.blocks.as_ptr(),
            grid.threads,
            grid.shared,
            pointers.as_mut_ptr(),
            c_int::from(reversed),
        )
    };
    if !wrong.is_null() {
        // SAFETY: a string constant of the library, which is never unloaded.
        let wrong = unsafe { CStr::from_ptr(wrong) }.to_string_lossy();
        return Err(Error::failed(format!("{kernel} {grid:?}: {wrong}")));
    }
    if !copies.iter().all(Guarded::is_whole) {
        return Err(Error::failed(format!(
            "{kernel}: a write outside its tensors"
        )));
    }
    Ok(copies
        .iter_mut()
        .map(|copy| copy.values().to_vec())
        .collect())
}

/// Where the memory of tensors begins, and its bytes; each once.
struct Places(Vec<(u64, usize)>);

impl Places {
    fn of(args: &[Arg]) -> Result<Self> {
        let mut places = Vec::new();
        for arg in args {
            if let Arg::Tensor(tensor) = arg {
                places.push(memory(tensor)?);
            }
        }
        places.sort_unstable();
        places.dedup();
        Ok(Self(places))
    }

    /// What lies there.
    fn bytes(&self) -> Vec<&[u8]> {
        let bytes = |&(start, bytes): &(u64, usize)| {
            // SAFETY: a tensor's memory, of so many bytes, which nobody writes as long as this is borrowed.
            unsafe { std::slice::from_raw_parts(start as *const u8, bytes) }
        };
        self.0.iter().map(bytes).collect()
    }

    /// A kernel's arguments as bits, where each place is copied to the address that `base` gives.
    fn values(&self, args: &[Arg], base: &dyn Fn(usize) -> u64) -> Result<Vec<u64>> {
        let value = |arg: &Arg| {
            Ok(match arg {
                Arg::Tensor(tensor) => {
                    let (start, _) = memory(tensor)?;
                    let index = self.0.iter().position(|place| place.0 == start);
                    base(index.expect("every tensor has a place")) + address(tensor)? - start
                }
                Arg::Nothing => 0,
                Arg::Int(n) => *n as u64,
                Arg::Float(x) => u64::from((*x as f32).to_bits()),
                Arg::Double(x) => x.to_bits(),
            })
        };
        args.iter().map(value).collect()
    }

    fn write(&self, contents: &[Vec<u8>]) {
        for ((start, bytes), values) in self.0.iter().zip(contents) {
            // SAFETY: the tensors' own memory, of as many bytes, which nobody else looks at now.
            unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), *start as *mut u8, *bytes) };
        }
    }
}

/// A copy of memory between guards of NaN, aligned as a GPU aligns it.
struct Guarded {
    all: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Guarded {
    const GUARD: usize = 4096;
    const BYTE: u8 = 0xff;

    fn copy(from: &[u8]) -> Self {
        let mut all = vec![Self::BYTE; from.len() + 2 * Self::GUARD + 256];
        let start = Self::GUARD + all[Self::GUARD..].as_ptr().align_offset(256);
        all[start..][..from.len()].copy_from_slice(from);
        Self {
            all,
            start,
            bytes: from.len(),
        }
    }

    fn address(&mut self) -> u64 {
        self.values().as_mut_ptr() as u64
    }

    fn values(&mut self) -> &mut [u8] {
        &mut self.all[self.start..][..self.bytes]
    }

    fn is_whole(&self) -> bool {
        let (before, rest) = self.all.split_at(self.start);
        let guards = before.iter().chain(&rest[self.bytes..]);
        guards.into_iter().all(|byte| *byte == Self::BYTE)
    }
}

fn compile(module: &Module) -> Result<PathBuf> {
    let mut text = format!("{HEADER}\n{}", module.text());
    for piece in module.source.text.split("KERNEL(").skip(1) {
        if let Some((name, _)) = piece.split_once(')') {
            text.push_str(&format!("EMULATOR_EXPORT({name})\n"));
        }
    }
    let folder = std::env::temp_dir().join("expo-emulator");
    let io = |error: std::io::Error| Error::io(&folder, &error);
    std::fs::create_dir_all(&folder).map_err(io)?;
    let name = format!("{:.24}", format!("{:x}", Sha256::digest(&text)));
    let library = folder.join(format!("{name}.so"));
    if library.exists() {
        return Ok(library);
    }
    let work = tempfile::tempdir_in(&folder).map_err(io)?;
    let (source, made) = (
        work.path().join("kernel.cpp"),
        work.path().join("kernel.so"),
    );
    std::fs::write(&source, &text).map_err(io)?;
    let compiler = compiler().ok_or_else(|| Error::failed("no C++ compiler"))?;
    // What C++ leaves open traps, so a load that is not aligned as a GPU needs it does too.
    let flags = "-std=c++17 -O1 -fPIC -shared -Wall -Wextra -Wno-unused-function -Wno-class-memaccess \
                 -Werror -fsanitize=undefined -fsanitize-undefined-trap-on-error";
    let output = Command::new(compiler)
        .args(flags.split_whitespace())
        .arg("-o")
        .args([&made, &source])
        .output()
        .map_err(io)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::failed(format!("{}: {said}", module.key())));
    }
    std::fs::rename(&made, &library).map_err(io)?;
    Ok(library)
}

pub(super) fn load(path: &Path) -> Result<usize> {
    let name = CString::new(path.to_string_lossy().as_bytes())
        .map_err(|_| Error::failed("a path with a zero byte"))?;
    // SAFETY: a library of ours, without initialisers.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    match handle.is_null() {
        true => Err(Error::failed(format!("{} does not load", path.display()))),
        false => Ok(handle as usize),
    }
}

fn function(library: usize, kernel: &str) -> Result<Run> {
    let name = CString::new(format!("emulator_{kernel}")).map_err(|_| Error::failed("a name"))?;
    // SAFETY: `library` came from `dlopen` and was not closed.
    let symbol = unsafe { libc::dlsym(library as *mut c_void, name.as_ptr()) };
    match symbol.is_null() {
        true => Err(Error::failed(format!("no kernel {kernel}"))),
        // SAFETY: `EMULATOR_EXPORT` makes every such symbol of this type.
        false => Ok(unsafe { std::mem::transmute::<*mut c_void, Run>(symbol) }),
    }
}

/// cuBLAS's product, by columns: `c` (m, n) = or += `a` (m, k) times `b` (k, n).
pub(super) fn product([a, b, c]: [Operand; 3], shape: [usize; 3], add: bool) -> Result<()> {
    let [m, n, k] = shape;
    let at = |x: &Operand, row: usize, column: usize| match x.transposed {
        true => row * x.leading + column,
        false => column * x.leading + row,
    };
    let get = |x: &Operand, row: usize, column: usize| {
        let place = at(x, row, column);
        // SAFETY: inside the operand, as its extents were checked against the shape.
        unsafe {
            match x.dtype {
                DType::BF16 => (*(x.address as *const bf16).add(place)).to_f32(),
                _ => *(x.address as *const f32).add(place),
            }
        }
    };
    for column in 0..n {
        for row in 0..m {
            let products =
                (0..k).map(|i| f64::from(get(&a, row, i)) * f64::from(get(&b, i, column)));
            let mut sum = products.sum::<f64>() as f32;
            if add {
                sum += get(&c, row, column);
            }
            let place = at(&c, row, column);
            // SAFETY: as above.
            unsafe {
                match c.dtype {
                    DType::BF16 => *(c.address as *mut bf16).add(place) = bf16::from_f32(sum),
                    _ => *(c.address as *mut f32).add(place) = sum,
                }
            }
        }
    }
    Ok(())
}

/// The whole memory that a tensor is a view of.
fn memory(tensor: &Tensor) -> Result<(u64, usize)> {
    let (storage, _) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::failed("a tensor elsewhere"));
    };
    let len = match storage {
        CpuStorage::U8(x) => x.len(),
        CpuStorage::U32(x) => 4 * x.len(),
        CpuStorage::F32(x) => 4 * x.len(),
        CpuStorage::F64(x) => 8 * x.len(),
        CpuStorage::BF16(x) => 2 * x.len(),
        CpuStorage::I16(x) => 2 * x.len(),
        CpuStorage::I64(x) => 8 * x.len(),
        _ => return Err(Error::failed("a dtype that no kernel takes")),
    };
    Ok((start(storage)?, len))
}

/// Where a tensor's first element is.
pub(super) fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::failed("a tensor elsewhere"));
    };
    let offset = layout.start_offset() * tensor.dtype().size_in_bytes();
    Ok(start(storage)? + offset as u64)
}

/// Where a storage begins.
fn start(storage: &CpuStorage) -> Result<u64> {
    Ok(match storage {
        CpuStorage::U8(x) => x.as_ptr() as u64,
        CpuStorage::U32(x) => x.as_ptr() as u64,
        CpuStorage::F32(x) => x.as_ptr() as u64,
        CpuStorage::F64(x) => x.as_ptr() as u64,
        CpuStorage::BF16(x) => x.as_ptr() as u64,
        CpuStorage::I16(x) => x.as_ptr() as u64,
        CpuStorage::I64(x) => x.as_ptr() as u64,
        _ => return Err(Error::failed("a dtype that no kernel takes")),
    })
}
