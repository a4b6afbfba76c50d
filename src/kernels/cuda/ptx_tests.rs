//! Kernels compiled for real cards: to PTX by NVRTC, as where expo runs, and that by ptxas to machine
//! code, which says what it takes of a card.
//!
//! Every file with kernels lists its modules, and a launch of what is not listed fails in tests.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::images::Target;
use super::module::{Listed, Module, Value};
use crate::error::{Error, Result};
use crate::kernels::emulator::load;
use crate::kernels::testing::project;

/// Compute capabilities that are tried: the oldest and the newest that kernels are written for.
const CARDS: [u32; 2] = [80, 90];

/// Registers of a multiprocessor.
const REGISTERS: usize = 1 << 16;

/// Registers are given to threads by this many.
const REGISTER_STEP: usize = 8;

/// Every module that an operation can launch; sizes of heads are samples.
pub(super) fn modules() -> Listed {
    let lists = [
        super::activation::modules(),
        super::attention::modules(),
        super::columns::modules(),
        super::elementwise::modules(),
        super::embedding::modules(),
        super::kv_cache::modules(),
        super::mix::modules(),
        super::norm::modules(),
        super::optimizer::modules(),
        super::rotary::modules(),
        super::sampling::modules(),
        super::token::modules(),
    ];
    Ok(lists.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// What tells modules apart but for numbers, of which any may come.
fn kind(module: &Module) -> String {
    let mut kind = module.source.name.to_owned();
    for (name, value) in module.defines() {
        if let Value::Name(value) = value {
            kind.push_str(&format!(" {name}={value}"));
        }
    }
    kind
}

/// # Errors
/// If a module is launched that no list has, or with more threads than its list says.
pub fn check(module: &Module, threads: u32) -> Result<()> {
    static KINDS: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
        let mut kinds = HashMap::new();
        for (module, threads) in modules().expect("lists of modules") {
            let most = kinds.entry(kind(&module)).or_default();
            *most = threads.max(*most);
        }
        kinds
    });
    match KINDS.get(&kind(module)) {
        Some(&most) if threads as usize <= most => Ok(()),
        known => Err(Error::failed(format!(
            "{} with {threads} threads: its file's `modules` has {known:?}",
            module.key()
        ))),
    }
}

/// What compiles for a card.
pub(super) struct Toolkit {
    pub(super) nvrtc: Nvrtc,
    ptxas: PathBuf,
    version: String,
}

impl Toolkit {
    /// Where `nvcc` is; a line that says what is missing where there is none.
    pub(super) fn find() -> Option<Self> {
        let found = Self::of(nvcc());
        let say = |what| {
            let line = format!("skipped: no {what} to compile the kernels for real cards\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
        };
        found.map_err(say).ok()
    }

    fn of(nvcc: Option<PathBuf>) -> std::result::Result<Self, &'static str> {
        let nvcc = nvcc.ok_or("CUDA toolkit (nvcc)")?;
        let bin = nvcc.parent().ok_or("CUDA toolkit (nvcc)")?;
        let ptxas = bin.join("ptxas");
        let version = Command::new(&ptxas).arg("--version").output();
        let version = version.map_err(|_| "ptxas beside nvcc")?;
        let folders = ["../lib64", "../lib", "../lib/x86_64-linux-gnu"].map(|name| bin.join(name));
        let nvrtc = folders.iter().find_map(|folder| Nvrtc::open(folder));
        Ok(Self {
            nvrtc: nvrtc.ok_or("NVRTC beside nvcc")?,
            ptxas,
            version: String::from_utf8_lossy(&version.stdout).into_owned(),
        })
    }

    /// What ptxas says of a module's kernels; from an earlier run where it is the same.
    fn compile(&self, module: &Module, card: u32) -> Result<String> {
        let text = module.text();
        let folder = std::env::temp_dir().join("expo-ptx");
        let io = |error: std::io::Error| Error::io(&folder, &error);
        std::fs::create_dir_all(&folder).map_err(io)?;
        let hash = Sha256::digest(format!("{card}\0{}\0{text}", self.version));
        let kept = folder.join(format!("{:.24}.log", format!("{hash:x}")));
        if let Ok(said) = std::fs::read_to_string(&kept) {
            return Ok(said);
        }
        let work = tempfile::tempdir_in(&folder).map_err(io)?;
        let [ptx, cubin, log] = ["ptx", "cubin", "log"].map(|name| work.path().join(name));
        std::fs::write(&ptx, self.nvrtc.compile(&text, Target::Ptx(card))?).map_err(io)?;
        let output = Command::new(&self.ptxas)
            .args(["-v", "-Werror", &format!("-arch=sm_{card}"), "-o"])
            .args([&cubin, &ptx])
            .output()
            .map_err(io)?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if !output.status.success() {
            return Err(Error::failed(said));
        }
        std::fs::write(&log, &said).map_err(io)?;
        std::fs::rename(&log, &kept).map_err(io)?;
        Ok(said)
    }
}

fn nvcc() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = |name: &str| set(name).map(|home| PathBuf::from(home).join("bin/nvcc"));
    let mut places: Vec<PathBuf> = set("NVCC").map(PathBuf::from).into_iter().collect();
    places.extend(["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(home));
    places.push("/usr/local/cuda/bin/nvcc".into());
    let path = set("PATH").unwrap_or_else(OsString::new);
    places.extend(std::env::split_paths(&path).map(|folder| folder.join("nvcc")));
    places.into_iter().find(|place| place.is_file())
}

/// The library that compiles text to PTX, loaded.
pub(super) struct Nvrtc(usize);

type Create = unsafe extern "C" fn(
    *mut *mut c_void,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type Compile = unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut *mut c_void) -> c_int;

impl Nvrtc {
    fn open(folder: &Path) -> Option<Self> {
        let files = std::fs::read_dir(folder).ok()?.flatten();
        let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
        files.sort();
        let named = |prefix: &str| {
            let is = |file: &&PathBuf| {
                let name = file.file_name().unwrap_or_default();
                name.to_string_lossy().starts_with(prefix)
            };
            files.iter().find(is)
        };
        // It looks for its other half by name alone, which is found once it is loaded.
        load(named("libnvrtc-builtins.so")?).ok()?;
        load(named("libnvrtc.so")?).ok().map(Self)
    }

    fn symbol(&self, name: &str) -> Result<*mut c_void> {
        let c_name = CString::new(name).map_err(|_| Error::failed("a name"))?;
        // SAFETY: the handle came from `dlopen` and was not closed.
        let symbol = unsafe { libc::dlsym(self.0 as *mut c_void, c_name.as_ptr()) };
        match symbol.is_null() {
            true => Err(Error::failed(format!("no {name} in NVRTC"))),
            false => Ok(symbol),
        }
    }

    /// Its version.
    pub(super) fn version(&self) -> Result<(i32, i32)> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: NVRTC's own function, of this type, which writes both numbers.
        unsafe {
            let version: Version = std::mem::transmute(self.symbol("nvrtcVersion")?);
            version(&mut major, &mut minor);
        }
        Ok((major, minor))
    }

    /// What a text compiles to.
    ///
    /// # Errors
    /// If it does not compile, or with a warning.
    pub(super) fn compile(&self, text: &str, target: Target) -> Result<Vec<u8>> {
        let text = CString::new(text).map_err(|_| Error::failed("a text with a zero byte"))?;
        let options = target
            .options()
            .map(|x| CString::new(x).unwrap_or_default());
        let options = options.each_ref().map(|option| option.as_ptr());
        // SAFETY: NVRTC's own functions, of these types; what they point to lives until the end, and
        // texts have the room that NVRTC asks for.
        unsafe {
            let create: Create = std::mem::transmute(self.symbol("nvrtcCreateProgram")?);
            let compile: Compile = std::mem::transmute(self.symbol("nvrtcCompileProgram")?);
            let destroy: Destroy = std::mem::transmute(self.symbol("nvrtcDestroyProgram")?);
            let get = |program, what: &str| -> Result<Vec<u8>> {
                let size: Size = std::mem::transmute(self.symbol(&format!("{what}Size"))?);
                let copy: Text = std::mem::transmute(self.symbol(what)?);
                let mut bytes = 0;
                size(program, &mut bytes);
                let mut text = vec![0u8; bytes];
                copy(program, text.as_mut_ptr().cast());
                Ok(text)
            };
            let mut program = std::ptr::null_mut();
            create(
                &mut program,
                text.as_ptr(),
                c"kernel.cu".as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            );
            let status = compile(program, options.len() as c_int, options.as_ptr());
            let log = get(program, "nvrtcGetProgramLog")?;
            let mut image = match target {
                Target::Cubin(_) => get(program, "nvrtcGetCUBIN")?,
                Target::Ptx(_) => get(program, "nvrtcGetPTX")?,
            };
            if let Target::Ptx(_) = target {
                image.pop();
            }
            destroy(&mut program);
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0');
            if status != 0 || !log.is_empty() {
                return Err(Error::failed(format!("NVRTC's status is {status}: {log}")));
            }
            Ok(image)
        }
    }
}

/// What is wrong with kernels of which ptxas says this, a line of text each.
fn complaints(said: &str, threads: usize) -> Vec<String> {
    let number_before = |line: &str, what: &str| -> Option<usize> {
        let (before, _) = line.split_once(what)?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    let (mut kernel, mut wrong) = ("", Vec::new());
    for line in said.lines() {
        if let Some((_, name)) = line.split_once("Compiling entry function '") {
            kernel = name.split('\'').next().unwrap_or(name);
        }
        for what in [
            "bytes stack frame",
            "bytes spill stores",
            "bytes spill loads",
        ] {
            if number_before(line, what).is_some_and(|n| n > 0) {
                wrong.push(format!("{kernel}: {}", line.trim()));
                break;
            }
        }
        if let Some(registers) = number_before(line, " registers") {
            let given = registers.next_multiple_of(REGISTER_STEP);
            if registers > 255 || given * threads > REGISTERS {
                wrong.push(format!(
                    "{kernel}: {registers} registers, {threads} threads"
                ));
            }
        }
    }
    wrong
}

#[test]
fn every_file_of_kernels_is_listed() {
    let Ok(files) = std::fs::read_dir(project("src/kernels/cuda")) else {
        let _ = std::io::stderr().write_all(b"skipped: no sources of kernels\n");
        return;
    };
    let files = files.map(|file| file.unwrap().path());
    let files: BTreeSet<String> = files
        .filter(|file| file.extension().is_some_and(|end| end == "cu"))
        .map(|file| file.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let listed = modules().unwrap().into_iter();
    let listed: BTreeSet<String> = listed.map(|(x, _)| x.source.name.to_owned()).collect();
    assert_eq!(files, listed);
}

#[test]
fn kernels_fit_real_cards() {
    let Some(toolkit) = Toolkit::find() else {
        return;
    };
    let modules = modules().unwrap();
    let tasks = modules
        .iter()
        .flat_map(|module| CARDS.map(|card| (module, card)));
    let mut tasks: Vec<_> = tasks.collect();
    // Long texts of floats take longest.
    tasks.sort_by_key(|((module, _), _)| {
        let length = module.source.text.len();
        std::cmp::Reverse((length, module.key().contains("float")))
    });
    let tried = tasks
        .par_iter()
        .with_max_len(1)
        .flat_map_iter(|&((module, threads), card)| {
            let wrong = match toolkit.compile(module, card) {
                Ok(said) => complaints(&said, *threads),
                Err(error) => vec![error.to_string()],
            };
            let name = format!("sm_{card} {}", module.key());
            wrong
                .into_iter()
                .map(move |wrong| format!("{name}: {wrong}"))
        });
    let wrong: Vec<String> = tried.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_card_has_no_room_for_is_seen() {
    let said = |line: &str| format!("info : Compiling entry function 'f' for 'sm_90'\n {line}\n");
    let frame = "16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    let spill = "0 bytes stack frame, 16 bytes spill stores, 40 bytes spill loads";
    assert_eq!(complaints(&said(frame), 32), [format!("f: {frame}")]);
    assert_eq!(complaints(&said(spill), 32), [format!("f: {spill}")]);
    let used = said("info    : Used 129 registers, used 1 barriers");
    assert_eq!(complaints(&used, 512), ["f: 129 registers, 512 threads"]);
    let fits = said("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads");
    assert!(complaints(&(fits + &used), 256).is_empty());
}
