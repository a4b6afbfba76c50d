//! NVIDIA's compilers on this machine: NVRTC as a library, ptxas and nvdisasm as programs.

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::kernels::cuda::images::Target;
use crate::kernels::emulator::load;

/// What compiles for a card.
pub struct Toolkit {
    nvrtc: Nvrtc,
    ptxas: PathBuf,
    /// Beside ptxas, where it is installed.
    nvdisasm: Option<PathBuf>,
    /// Of both.
    versions: String,
}

impl Toolkit {
    /// Where `nvcc` is; a line that says what is missing where there is none.
    pub fn find() -> Option<&'static Self> {
        static FOUND: LazyLock<std::result::Result<Toolkit, &str>> =
            LazyLock::new(|| Toolkit::of(nvcc()));
        let say = |what: &&str| skip(&format!("{what} to compile the kernels for real cards"));
        FOUND.as_ref().map_err(say).ok()
    }

    fn of(nvcc: Option<PathBuf>) -> std::result::Result<Self, &'static str> {
        let nvcc = nvcc.ok_or("CUDA toolkit (nvcc)")?;
        let bin = nvcc.parent().ok_or("CUDA toolkit (nvcc)")?;
        let ptxas = bin.join("ptxas");
        let version = |program: &Path| {
            let output = Command::new(program).arg("--version").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let mut versions = version(&ptxas).ok_or("ptxas beside nvcc")?;
        let nvdisasm = bin.join("nvdisasm");
        let nvdisasm = version(&nvdisasm).map(|version| {
            versions.push_str(&version);
            nvdisasm
        });
        if nvdisasm.is_none() {
            skip("nvdisasm beside nvcc to see how wide the kernels' loads and stores are");
        }
        let folders = ["../lib64", "../lib", "../lib/x86_64-linux-gnu"].map(|name| bin.join(name));
        let nvrtc = folders.iter().find_map(|folder| Nvrtc::open(folder));
        Ok(Self {
            nvrtc: nvrtc.ok_or("NVRTC beside nvcc")?,
            ptxas,
            nvdisasm,
            versions,
        })
    }

    /// A text as PTX.
    ///
    /// # Errors
    /// If it does not compile, or with a warning.
    pub fn ptx(&self, text: &str, card: u32) -> Result<String> {
        self.kept(text, card, "ptx", |_| {
            let ptx = self.nvrtc.compile(text, Target::Ptx(card))?;
            Ok(String::from_utf8_lossy(&ptx).into_owned())
        })
    }

    /// NVRTC's version.
    pub fn version(&self) -> Result<(i32, i32)> {
        self.nvrtc.version()
    }

    /// A text as machine code.
    ///
    /// # Errors
    /// If it does not compile, or with a warning.
    pub fn cubin(&self, text: &str, card: u32) -> Result<Vec<u8>> {
        self.nvrtc.compile(text, Target::Cubin(card))
    }

    /// What ptxas says of a text's kernels and, where there is nvdisasm, below each kernel's name its
    /// instructions that load from global memory or store there.
    ///
    /// # Errors
    /// If ptxas does not take NVRTC's PTX, or not without a warning.
    pub fn assemble(&self, text: &str, card: u32) -> Result<String> {
        self.kept(text, card, "log", |work| {
            let [ptx, cubin] = ["ptx", "cubin"].map(|name| work.join(name));
            let io = |error: std::io::Error| Error::io(&ptx, &error);
            std::fs::write(&ptx, self.ptx(text, card)?).map_err(io)?;
            let mut ptxas = Command::new(&self.ptxas);
            ptxas.args(["-v", "-Werror", &format!("-arch=sm_{card}"), "-o"]);
            let said = run(ptxas.args([&cubin, &ptx]))?;
            let mut said = String::from_utf8_lossy(&said).into_owned();
            if let Some(nvdisasm) = &self.nvdisasm {
                let code = run(Command::new(nvdisasm).arg("--print-code").arg(&cubin))?;
                said.push_str(&accesses(&String::from_utf8_lossy(&code)));
            }
            Ok(said)
        })
    }

    /// What was made of a text in an earlier run, or is now, in a directory to work in.
    fn kept(
        &self,
        text: &str,
        card: u32,
        kind: &str,
        make: impl FnOnce(&Path) -> Result<String>,
    ) -> Result<String> {
        let folder = std::env::temp_dir().join("expo-ptx");
        let io = |error: std::io::Error| Error::io(&folder, &error);
        std::fs::create_dir_all(&folder).map_err(io)?;
        let hash = Sha256::digest(format!("{card}\0{}\0{text}", self.versions));
        let kept = folder.join(format!("{:.24}.{kind}", format!("{hash:x}")));
        if let Ok(made) = std::fs::read_to_string(&kept) {
            return Ok(made);
        }
        let work = tempfile::tempdir_in(&folder).map_err(io)?;
        let made = make(work.path())?;
        let whole = work.path().join("made");
        std::fs::write(&whole, &made).map_err(io)?;
        std::fs::rename(&whole, &kept).map_err(io)?;
        Ok(made)
    }
}

fn skip(what: &str) {
    let _ = std::io::stderr().write_all(format!("skipped: no {what}\n").as_bytes());
}

/// What a program says.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output();
    let output = output.map_err(|error| Error::failed(format!("{command:?}: {error}")))?;
    let said = [output.stdout, output.stderr].concat();
    match output.status.success() {
        true => Ok(said),
        false => Err(Error::failed(String::from_utf8_lossy(&said))),
    }
}

/// Of machine code, the kernels' names and the opcodes of their loads and stores, a line each.
fn accesses(code: &str) -> String {
    let mut lines = String::new();
    for line in code.lines().map(str::trim) {
        let is_access = |word: &&str| word.starts_with("LDG") || word.starts_with("STG");
        let name = line
            .strip_prefix(".text.")
            .and_then(|name| name.strip_suffix(':'));
        if name.is_some() {
            lines.push_str(&format!("{line}\n"));
        } else if let Some(opcode) = line.split_whitespace().find(is_access) {
            lines.push_str(&format!("{opcode}\n"));
        }
    }
    lines
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
struct Nvrtc(usize);

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

    fn version(&self) -> Result<(i32, i32)> {
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
    fn compile(&self, text: &str, target: Target) -> Result<Vec<u8>> {
        let text = CString::new(text).map_err(|_| Error::failed("a text with a zero byte"))?;
        let options = target.options();
        let options = options.map(|option| CString::new(option).unwrap_or_default());
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
            // The zero byte behind a text.
            let text_of = |program, what: &str| -> Result<Vec<u8>> {
                let mut text = get(program, what)?;
                text.pop();
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
            let log = text_of(program, "nvrtcGetProgramLog")?;
            let image = match target {
                Target::Cubin(_) => get(program, "nvrtcGetCUBIN")?,
                Target::Ptx(_) => text_of(program, "nvrtcGetPTX")?,
            };
            destroy(&mut program);
            if status != 0 || !log.is_empty() {
                let log = String::from_utf8_lossy(&log);
                return Err(Error::failed(format!("NVRTC's status is {status}: {log}")));
            }
            Ok(image)
        }
    }
}
