//! Several GPUs of this machine without a launcher: `cuda:0-7` is a process for each of them.
//!
//! *Why* processes: ranks are, under every launcher, so nothing else has to know of this. The first process computes
//! nothing; it passes signals on, and ends with the ranks.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use expo::error::{Error, Result};
use expo::kernels::device::gpus;
use expo::model::device::{is_one_gpu, several};
use expo::ranks::{Launch, environment};

use super::dispatch::DeviceRequest;
use super::launcher::Work;

/// Which GPUs a process sees, and as which numbers.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Tells a rank which process started it.
const PARENT: &str = "EXPO_RANKS_PARENT";

/// Ranks end by themselves after one has failed, unless they are stuck.
const GRACE: Duration = Duration::from_secs(30);

const NAP: Duration = Duration::from_millis(20);

/// Starts the ranks, if a command asks for several GPUs and is no rank itself, and ends with their exit code.
///
/// # Errors
/// If this machine does not have the GPUs, the command is one process, or a rank does not start.
pub fn launch(asked: &DeviceRequest, work: Work) -> anyhow::Result<()> {
    let is_rank = Launch::parse(&environment())?.size > 1;
    if is_rank && work == Work::Shared && is_one_gpu(asked.device()) {
        let error = Error::input("one GPU, which ranks cannot share");
        let hint = "set \"cuda\", and each rank takes a GPU of its own";
        asked.refuse(error.hint(hint))?;
    }
    let Some(range) = several(asked.device()) else {
        return Ok(());
    };
    if is_rank {
        return Ok(end_with_parent()?);
    }
    if work == Work::Alone {
        let error = Error::input("several GPUs of a command that computes on one");
        asked.refuse(error.hint("valid here: auto, cpu, cuda:N"))?;
    }
    if asked.is_piped() {
        let error = Error::input("a process for each GPU cannot read one pipe");
        asked.refuse(error.hint("write the config to a file"))?;
    }
    let count = match gpus() {
        Ok(count) => count,
        Err(error) => return Ok(asked.refuse(error)?),
    };
    let named: Vec<usize> = range.collect();
    if named.last().is_none_or(|last| *last >= count) {
        let error = Error::input("GPUs that are not there");
        let last = count.saturating_sub(1);
        asked.refuse(error.hint(format!("this machine has {count}: cuda:0 to cuda:{last}")))?;
    }
    let signal = signals()?;
    let mut ranks = Ranks::start(&visible(&named)?)?;
    let code = ranks.wait(|| signal.swap(0, Relaxed))?;
    std::process::exit(code)
}

/// Has the system ask this rank to stop when the process that started it is gone, however that ended.
#[cfg(target_os = "linux")]
fn end_with_parent() -> Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    let Some(parent) = std::env::var_os(PARENT) else {
        return Ok(());
    };
    let failed = |error| Error::failed(format!("the signal of a parent's end: {error}"));
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(failed)?;
    let now = getppid().map(|parent| parent.as_raw_nonzero().to_string());
    match now.is_some_and(|now| parent == *now) {
        true => Ok(()),
        false => Err(Error::rank("the process that started this rank is gone")),
    }
}

/// This system does not.
#[cfg(not(target_os = "linux"))]
fn end_with_parent() -> Result<()> {
    Ok(())
}

/// The number of the last signal that asked this process to stop, 0 after it was taken.
#[cfg(unix)]
fn signals() -> Result<Arc<AtomicUsize>> {
    use signal_hook::consts::{SIGINT, SIGTERM};

    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM] {
        let registered =
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize);
        registered.map_err(|error| Error::failed(format!("signals: {error}")))?;
    }
    Ok(signal)
}

/// No signal is listened to on this system.
#[cfg(not(unix))]
fn signals() -> Result<Arc<AtomicUsize>> {
    Ok(Arc::default())
}

/// What [`VISIBLE`] is to be for each rank's own number to be that of its GPU.
fn visible(named: &[usize]) -> Result<Vec<String>> {
    let given = std::env::var(VISIBLE).unwrap_or_default();
    let given: Vec<&str> = given.split(',').filter(|name| !name.is_empty()).collect();
    let name = |&number: &usize| match given.get(number) {
        Some(name) => Ok((*name).to_owned()),
        None if given.is_empty() => Ok(number.to_string()),
        None => Err(Error::input(format!(
            "{VISIBLE} has {} GPUs, of which number {number} is none",
            given.len()
        ))),
    };
    named.iter().map(name).collect()
}

/// The processes.
struct Ranks {
    running: Vec<Child>,
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for rank in &mut self.running {
            // One that has ended cannot be killed.
            let _ = rank.kill();
        }
    }
}

impl Ranks {
    fn start(gpus: &[String]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's path")?;
        let parent = std::process::id();
        let launch = format!("expo-{parent}-{:x}", rand::random::<u64>());
        let size = gpus.len().to_string();
        let mut ranks = Self {
            running: Vec::new(),
        };
        for rank in 0..gpus.len() {
            let mut command = Command::new(&program);
            command
                .args(std::env::args_os().skip(1))
                .env(VISIBLE, gpus.join(","))
                .env("RANK", rank.to_string())
                .env("LOCAL_RANK", rank.to_string())
                .env("WORLD_SIZE", &size)
                .env("LOCAL_WORLD_SIZE", &size)
                .env("MASTER_ADDR", "localhost")
                .env("TORCHELASTIC_RUN_ID", &launch)
                .env(PARENT, parent.to_string())
                .stdin(Stdio::null());
            // Of a group of their own: a terminal sends signals to this process alone, which passes them on.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            let started = command.spawn();
            ranks
                .running
                .push(started.with_context(|| format!("the start of rank {rank}"))?);
        }
        Ok(ranks)
    }

    /// Waits for all of them, and gives the exit code of the first that failed. `signal` takes the number of a
    /// signal that came: the first asks the ranks to stop, the second ends them at once.
    fn wait(&mut self, signal: impl Fn() -> usize) -> anyhow::Result<i32> {
        let mut failed: Option<(i32, Instant)> = None;
        let mut stopped = None;
        while !self.running.is_empty() {
            match (signal(), stopped) {
                (0, _) => {}
                (number, None) => {
                    stopped = Some(number);
                    self.running.iter().for_each(ask_to_stop);
                }
                (_, Some(_)) => self.running.iter_mut().try_for_each(Child::kill)?,
            }
            let mut still = Vec::new();
            for mut rank in self.running.drain(..) {
                match rank.try_wait()? {
                    None => still.push(rank),
                    Some(status) if status.success() => {}
                    Some(status) => {
                        failed.get_or_insert((code(status), Instant::now()));
                    }
                }
            }
            self.running = still;
            if failed.is_some_and(|(_, since)| since.elapsed() > GRACE) {
                self.running.iter_mut().try_for_each(Child::kill)?;
            }
            sleep(NAP);
        }
        // By whatever signal they were asked, the command was by that one.
        Ok(match (failed, stopped) {
            (Some((128.., _)), Some(number)) => 128 + number as i32,
            (Some((code, _)), _) => code,
            (None, _) => 0,
        })
    }
}

/// As shells give it, where a signal ended the process.
fn code(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal;
    }
    status.code().unwrap_or(1)
}

/// Asks a rank to finish its step, by a signal that no supervisor sends to all processes, which would be the second
/// one. One that has ended gets none.
#[cfg(unix)]
fn ask_to_stop(rank: &Child) {
    use rustix::process::{Pid, Signal, kill_process};

    if let Some(pid) = Pid::from_raw(rank.id() as i32) {
        let _ = kill_process(pid, Signal::USR1);
    }
}

/// There are no signals on this system.
#[cfg(not(unix))]
fn ask_to_stop(_: &Child) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_named_by_their_numbers() {
        assert_eq!(visible(&[1, 2]).unwrap(), ["1", "2"]);
    }
}
