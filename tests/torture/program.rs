//! The program at work on a tiny run, and how it ended.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::fixture;

/// A process that has not ended by then hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder with the config of a run, which many runs are made of, and one that nothing disturbed.
pub struct Stage {
    folder: TempDir,
    /// The run that nothing disturbed.
    pub whole: PathBuf,
    /// How long it took.
    pub time: Duration,
}

/// A folder on a disk.
pub fn disk() -> PathBuf {
    std::env::temp_dir()
}

/// A folder in memory, where there is one with room.
pub fn memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    let free = expo::io::durable::free_bytes(&shared);
    match free {
        Some(bytes) if bytes > 1 << 30 => shared,
        _ => disk(),
    }
}

impl Stage {
    /// A run of so many steps, of which every one is saved and the last three are kept, every second
    /// evaluated, every third logged.
    pub fn new(base: &Path, steps: usize) -> Self {
        let folder = tempfile::tempdir_in(base).unwrap();
        let (model, pairs) = (fixture("llama"), fixture("pairs.jsonl"));
        let pairs = pairs.display();
        let text = format!(
            "[model]\nmodel_name_or_path = {model:?}\n\
             [data]\nformat = \"pairs\"\ntrain = \"{pairs}[:11]\"\neval = \"{pairs}[20:]\"\n\
             max_length = 48\nmax_prompt_length = 24\n\
             [loss.dpo]\n[batch]\nbatch_size = 3\nmicro_batch_tokens = 128\n\
             [optimizer]\noptim = \"adamw\"\nlearning_rate = 1e-3\nweight_decay = 0.1\n\
             [run]\noutput_dir = \"unset\"\nseed = 5\nmax_steps = {steps}\nsave_steps = 1\n\
             save_total_limit = 3\neval_steps = 2\nlogging_steps = 3\n"
        );
        fs::write(folder.path().join("run.toml"), text).unwrap();
        let whole = folder.path().join("whole");
        let mut stage = Self {
            folder,
            whole,
            time: Duration::ZERO,
        };
        // The first one also scores the reference, which the others find in the cache.
        for _ in 0..2 {
            let _ = fs::remove_dir_all(&stage.whole);
            let start = Instant::now();
            let ended = stage.start(&[], &stage.whole, 1).wait();
            assert_eq!(ended.code, Some(0), "{}", ended.err);
            stage.time = start.elapsed();
        }
        stage
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `expo train` into the folder `run`, behind other words.
    pub fn command(&self, prefix: &[&str], run: &Path, threads: u64) -> Command {
        self.command_with(prefix, run, threads, &self.path("cache"))
    }

    /// As [`Self::command`], with a cache of its own.
    pub fn command_with(&self, prefix: &[&str], run: &Path, threads: u64, cache: &Path) -> Command {
        let mut words: Vec<OsString> = prefix.iter().map(OsString::from).collect();
        words.push(env!("CARGO_BIN_EXE_expo").into());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["train", "--resume", "auto", "--config"])
            .arg(self.path("run.toml"))
            .args(["--set", &format!("run.output_dir={}", run.display())])
            .args(["--set", &format!("run.cache_dir={}", cache.display())])
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::null());
        command
    }

    /// Starts it.
    pub fn start(&self, prefix: &[&str], run: &Path, threads: u64) -> Running {
        Running::start(self.command(prefix, run, threads))
    }

    /// Runs it to its end, undisturbed; what is wrong with that end.
    pub fn finish(&self, run: &Path) -> Result<(), String> {
        let ended = self.start(&[], run, 1).wait();
        match ended.code {
            Some(0) => Ok(()),
            code => Err(format!("not gone on with: {code:?} {}", ended.err)),
        }
    }
}

/// A process, and what it has written so far.
pub struct Running {
    child: Child,
    start: Instant,
    err: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub err: String,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Self::start_as_it_is(command)
    }

    /// As [`Self::start`], with the outputs that the command has.
    pub fn start_as_it_is(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let err = Arc::<Mutex<Vec<u8>>>::default();
        let reader = child.stderr.take().map(|mut pipe| {
            let err = Arc::clone(&err);
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = pipe.read(&mut piece) {
                    err.lock().unwrap().extend_from_slice(&piece[..read]);
                }
            })
        });
        Self {
            child,
            start: Instant::now(),
            err,
            reader,
        }
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap()).into_owned()
    }

    /// Whether it is still at work; one that is for too long is ended and fails the test.
    pub fn is_alive(&mut self) -> bool {
        if self.start.elapsed() > LIMIT {
            let _ = self.child.kill();
            panic!("hangs: {}", self.said());
        }
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `found` says so; whether it was still at work then.
    pub fn wait_until(&mut self, mut found: impl FnMut() -> bool) -> bool {
        while self.is_alive() {
            if found() {
                return true;
            }
            sleep(Duration::from_micros(50));
        }
        false
    }

    /// Waits until it has said this; whether it was still at work then.
    pub fn wait_until_it_says(&mut self, words: &str) -> bool {
        let said = Arc::clone(&self.err);
        self.wait_until(|| String::from_utf8_lossy(&said.lock().unwrap()).contains(words))
    }

    /// Lets it work for so long; whether it still is.
    pub fn work(&mut self, time: Duration) -> bool {
        sleep(time.saturating_sub(self.start.elapsed()));
        self.is_alive()
    }

    /// SIGKILL, and its end.
    pub fn kill(mut self) -> Ended {
        let _ = self.child.kill();
        self.wait()
    }

    pub fn wait(mut self) -> Ended {
        while self.is_alive() {
            sleep(Duration::from_millis(1));
        }
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Ended::new(status, self.said())
    }
}

impl Ended {
    fn new(status: ExitStatus, err: String) -> Self {
        Self {
            code: status.code(),
            signal: status.signal(),
            err,
        }
    }

    /// What no end may have: a panic, or an error that does not say where.
    pub fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.err.contains("panicked") {
            found.push(format!("panic: {}", self.err));
        }
        let last = self.err.lines().last().unwrap_or_default();
        let error = last.strip_prefix("error: ");
        let failed = !matches!(self.code, None | Some(0 | 130 | 143));
        if failed && !error.is_some_and(|text| text.contains('/') || text.contains("standard ")) {
            found.push(format!("pathless: {:?} {}", self.code, self.err));
        }
        found
    }
}
