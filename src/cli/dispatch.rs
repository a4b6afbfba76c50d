//! One command for CPU and GPU: which of two programs computes, this one or `expo-cuda` beside it.
//!
//! *Why*: a program that links to CUDA does not start where CUDA's libraries are missing. So there are
//! two: `expo`, which starts anywhere, and `expo-cuda`, the same built for CUDA. A command that computes
//! on a device is handed over to the second where there is a GPU.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use expo::config::{Source, SweepConfig};
use expo::error::{Error, Result};
use expo::kernels::device::CUDA;
use expo::kernels::installed::{Driver, driver};

use super::args::ComputeArgs;
use super::error::flagged;
use super::{tell, version};

/// The version of CUDA that `expo-cuda` is built for, as drivers give it.
const CUDA_VERSION: i32 = 13_000;

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: i32 = 100;

/// The file name of the program that is built for CUDA.
const PROGRAM: &str = if cfg!(windows) {
    "expo-cuda.exe"
} else {
    "expo-cuda"
};

const INSTALL_LIBRARIES: &str = "install the libraries of CUDA 13 (cudart, cuBLAS, cuRAND, NVRTC) and \
                                 name their directory in LD_LIBRARY_PATH";
const INSTALL_DRIVER: &str = "install NVIDIA's driver, version 580 or later";
const INSTALL_BOTH: &str = "install both programs from one build: scripts/build_release.sh";

/// Why this program computes on the CPU, where that was not asked for.
static REASON: OnceLock<String> = OnceLock::new();

/// The device that a command asks for.
pub struct DeviceRequest {
    device: String,
    /// The config that says so, if it is none of the flags.
    source: Option<Source>,
    /// Whether the command reads that from a pipe.
    is_piped: bool,
}

impl DeviceRequest {
    /// By `--device`.
    pub fn by_flag(compute: &ComputeArgs) -> Self {
        Self {
            device: compute.device.clone(),
            source: None,
            is_piped: false,
        }
    }

    /// By `model.device` of a config; `None` where it cannot be read, which the command reports.
    pub fn by_config(path: &Path, overrides: &[String]) -> Option<Self> {
        // A pipe can be read only once: whoever computes reads it.
        let is_piped = is_pipe(path);
        let source = match is_piped {
            true => Source::parse("", overrides),
            false => Source::open(path, overrides),
        };
        let request = Self::of(source.ok()?)?;
        Some(Self {
            is_piped,
            ..request
        })
    }

    /// By the runs of a sweep: the first that does not ask for the CPU, or the first.
    pub fn by_sweep(path: &Path, overrides: &[String]) -> Option<Self> {
        if is_pipe(path) {
            return Self::by_config(path, overrides);
        }
        let sweep = SweepConfig::open(path, overrides).ok()?;
        let mut sources: Vec<Source> = sweep.runs.into_iter().map(|run| run.source).collect();
        let gpu = sources
            .iter()
            .position(|source| source.device() != Some("cpu"));
        Self::of(sources.swap_remove(gpu.unwrap_or(0)))
    }

    fn of(source: Source) -> Option<Self> {
        Some(Self {
            device: source.device()?.to_owned(),
            source: Some(source),
            is_piped: false,
        })
    }

    /// Whether it stands in a config that can be read only once.
    pub fn is_piped(&self) -> bool {
        self.is_piped
    }

    /// Its name.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// By its name.
    pub fn named(device: &str) -> Self {
        Self {
            device: device.to_owned(),
            source: None,
            is_piped: false,
        }
    }

    /// Refuses the device, at the place that asks for it.
    pub fn refuse(&self, error: Error) -> Result<()> {
        let error = error
            .with_fact(|fact| format!("device \"{}\": {fact}", self.device))
            .at_key("model.device");
        match &self.source {
            Some(source) => Err(source.locate(error)),
            None => flagged(Err(error)),
        }
    }
}

fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|path| !path.is_file())
}

/// Hands the process over to `expo-cuda`, if that is there, starts and has a GPU, and the command does
/// not ask for the CPU; it returns where this program is to go on.
///
/// # Errors
/// If the command asks for a GPU that cannot be had, or `expo-cuda` is of another version.
pub fn hand_over(asked: &DeviceRequest) -> Result<()> {
    if CUDA || asked.device == "cpu" {
        return Ok(());
    }
    let mode = std::env::var_os("EXPO_CUDA").unwrap_or_default();
    let always = match mode.to_str() {
        Some("never") => return Ok(()),
        Some("always") => true,
        Some("" | "auto") => false,
        _ => {
            let what = format!("EXPO_CUDA is \"{}\"", mode.display());
            return Err(Error::input(what).hint("valid: auto, always, never"));
        }
    };
    let gpu = asked.device.starts_with("cuda");
    // What else a device may be called is refused later, with the valid names.
    if !gpu && asked.device != "auto" {
        return Ok(());
    }
    let beside = std::env::current_exe().map(|own| own.with_file_name(PROGRAM));
    let program = beside.map_err(|error| Error::failed(format!("this program's path: {error}")))?;
    let found = match program.is_file() {
        false => Err(Obstacle::Absent),
        true if always => start(&program),
        true => has_gpu().and_then(|()| start(&program)),
    };
    match found {
        Ok(()) => Err(become_program(&program)),
        Err(obstacle @ Obstacle::OtherVersion(_)) => Err(obstacle.error(&program)),
        Err(obstacle) if gpu || always => asked.refuse(obstacle.error(&program)),
        Err(obstacle) => {
            obstacle.mention(&program);
            Ok(())
        }
    }
}

/// Why this program computes on the CPU, where that was not asked for.
pub fn reason() -> Option<&'static str> {
    REASON.get().map(String::as_str)
}

/// Why `expo-cuda` is not run.
enum Obstacle {
    /// It is not there.
    Absent,
    /// There is no driver, or none that it can use.
    Driver(Driver),
    /// It does not start: why, and what helps.
    DoesNotStart(String, &'static str),
    /// It calls itself so, and is not the other half of this program.
    OtherVersion(String),
}

impl Obstacle {
    fn error(&self, program: &Path) -> Error {
        let name = program.display();
        match self {
            Self::Absent => Error::input(format!(
                "this build of expo has no CUDA, and there is no {name}"
            ))
            .hint(
                "scripts/build_release.sh builds both (cargo build --release --features cuda builds one), or \
                 set the device to cpu",
            ),
            Self::Driver(Driver::Works { cuda, gpus: 1.. }) => Error::input(format!(
                "the NVIDIA driver supports CUDA {}.{} only",
                cuda / 1000,
                cuda % 1000 / 10
            ))
            .hint(INSTALL_DRIVER),
            Self::Driver(Driver::Failed(NO_DEVICE) | Driver::Works { .. }) => {
                Error::input("the NVIDIA driver finds no GPU").hint("valid here: auto, cpu")
            }
            Self::Driver(Driver::Missing) => {
                Error::input("there is no NVIDIA driver (libcuda.so.1)").hint(INSTALL_DRIVER)
            }
            Self::Driver(Driver::Failed(code)) => {
                Error::input(format!("the NVIDIA driver fails with error {code}"))
                    .hint("nvidia-smi tells more")
            }
            Self::DoesNotStart(why, hint) => {
                Error::input(format!("{name} does not start: {why}")).hint(*hint)
            }
            Self::OtherVersion(other) => {
                Error::input(format!("{name} is \"{other}\", not \"{}\"", other_half()))
                    .hint(INSTALL_BOTH)
            }
        }
    }

    /// Says it where the GPU was not asked for: in the header, and as a warning where something has to be
    /// repaired.
    fn mention(&self, program: &Path) {
        let reason = match self {
            // Without a GPU that it would use nobody misses the other program. This asks no driver.
            Self::Absent if !Path::new("/proc/driver/nvidia/version").exists() => return,
            Self::Absent => format!("as there is no {PROGRAM} beside expo"),
            Self::Driver(Driver::Missing) => "as there is no NVIDIA driver".to_owned(),
            Self::Driver(Driver::Failed(NO_DEVICE) | Driver::Works { gpus: ..1, .. }) => {
                "as there is no GPU".to_owned()
            }
            Self::Driver(_) | Self::DoesNotStart(..) | Self::OtherVersion(_) => {
                let warning = self.error(program);
                tell(format!("warning: computing on the CPU: {warning}"));
                return;
            }
        };
        // It was not set above: a process asks once.
        let _ = REASON.set(reason);
    }
}

/// Asks the driver.
fn has_gpu() -> std::result::Result<(), Obstacle> {
    match driver() {
        Driver::Works {
            cuda: CUDA_VERSION..,
            gpus: 1..,
        } => Ok(()),
        other => Err(Obstacle::Driver(other)),
    }
}

/// What `expo-cuda` calls itself if it is of the same build as this program.
fn other_half() -> String {
    format!("expo {} with CUDA", version())
}

/// Whether the program starts and is this one's other half.
fn start(program: &Path) -> std::result::Result<(), Obstacle> {
    const LOOK: &str = "its --version by itself tells more";
    let mut command = Command::new(program);
    let output = command.arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| Obstacle::DoesNotStart(error.to_string(), LOOK))?;
    if output.status.success() {
        let name = String::from_utf8_lossy(&output.stdout);
        return match name.trim() == other_half() {
            true => Ok(()),
            false => Err(Obstacle::OtherVersion(name.trim().to_owned())),
        };
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    let after = |words: &str| last.split_once(words).map(|(_, rest)| rest);
    // "expo-cuda: error while loading shared libraries: libcublas.so.13: cannot open shared object file: …"
    if let Some(library) = after("error while loading shared libraries: ") {
        let library = library.split(':').next().unwrap_or_default();
        let why = format!("{library} is missing");
        return Err(Obstacle::DoesNotStart(why, INSTALL_LIBRARIES));
    }
    // "expo-cuda: symbol lookup error: expo-cuda: undefined symbol: cublasNew"
    if let Some(symbol) = after("undefined symbol: ") {
        let why = format!("a library is too old, it has no {symbol}");
        return Err(Obstacle::DoesNotStart(why, INSTALL_LIBRARIES));
    }
    let why = format!("{}, {last}", output.status);
    let why = why.trim_end_matches(", ").to_owned();
    Err(Obstacle::DoesNotStart(why, LOOK))
}

/// The same command by another program, in this process. Returns only if that fails.
#[cfg(unix)]
fn become_program(program: &Path) -> Error {
    use std::os::unix::process::CommandExt;

    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Error::io(program, &command.args(arguments).exec())
}

/// The same command by another program, which is waited for. Returns only if it cannot be started.
#[cfg(not(unix))]
fn become_program(program: &Path) -> Error {
    match Command::new(program)
        .args(std::env::args_os().skip(1))
        .status()
    {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => Error::io(program, &error),
    }
}

/// The name of this program where it is another than `expo`.
pub fn other_name() -> Option<String> {
    let own = std::env::current_exe().ok()?;
    let name = own.file_stem().map(OsStr::to_string_lossy)?;
    (name != "expo").then(|| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, overrides: &[&str]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        DeviceRequest::by_config(&path, &overrides).map(|asked| asked.device)
    }

    #[test]
    fn a_config_and_its_overrides_ask_for_a_device() {
        let text = "[model]\ndevice = \"cpu\"\n";
        let some = |device: &str| Some(device.to_owned());
        assert_eq!(asked(text, &[]), some("cpu"));
        assert_eq!(asked(text, &["model.device=cuda:1"]), some("cuda:1"));
        assert_eq!(asked("", &[]), some("auto"));
        assert_eq!(asked("[model]\ndevice = 3\n", &[]), None);
        assert_eq!(asked("[model\n", &[]), None);
        assert!(DeviceRequest::by_config(Path::new("nowhere.toml"), &[]).is_none());
        // A directory, as a pipe, is not read.
        let overrides = ["model.device=cpu".to_owned()];
        let asked = DeviceRequest::by_config(Path::new("."), &overrides).unwrap();
        assert_eq!(asked.device, "cpu");
    }

    #[test]
    fn a_device_that_cannot_be_had_is_refused_where_it_was_asked_for() {
        let flag = DeviceRequest {
            device: "cuda:0".into(),
            source: None,
            is_piped: false,
        };
        let message = |asked: &DeviceRequest, obstacle: Obstacle| {
            let refused = asked.refuse(obstacle.error(Path::new("/opt/expo-cuda")));
            crate::cli::error::message(&refused.unwrap_err().into())
        };
        assert_eq!(
            message(&flag, Obstacle::Driver(Driver::Missing)),
            "--device: device \"cuda:0\": there is no NVIDIA driver (libcuda.so.1); install NVIDIA's \
             driver, version 580 or later"
        );
        let config = DeviceRequest {
            device: "cuda:0".into(),
            source: Some(Source::named("run.toml", "[model]\ndevice = \"cuda:0\"\n", &[]).unwrap()),
            is_piped: false,
        };
        let old = Driver::Works {
            cuda: 12_040,
            gpus: 1,
        };
        let message = message(&config, Obstacle::Driver(old));
        let begins = "run.toml:2: device \"cuda:0\": the NVIDIA driver supports CUDA 12.4 only; ";
        assert!(message.starts_with(begins), "{message}");
    }
}
