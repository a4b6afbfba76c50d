//! This program as the process that a chat template is rendered in.
//!
//! *Why*: see [`expo::data::chat`]. It is this program once more, since that is there and of the same
//! version, under an argument that no user gives.

use std::ffi::OsStr;
use std::io::{self, BufWriter, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use expo::data::chat::{self, Link, Meter};
use expo::kernels::memory;

/// The argument that makes this program a renderer.
const ARGUMENT: &str = "--render-a-chat-template";

/// What a renderer may say at its end, in bytes.
const LAST_WORDS: u64 = 4096;

/// Has templates rendered by this program, started once more.
pub fn use_processes() {
    chat::render_in(start);
}

fn start() -> io::Result<Link> {
    let mut command = Command::new(own_program()?);
    command
        .arg(ARGUMENT)
        // Its last words are to be a line.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A signal from the terminal is for its user, who ends it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    let closed = || io::Error::other("its pipes are closed");
    Ok(Link {
        requests: Box::new(child.stdin.take().ok_or_else(closed)?),
        replies: Box::new(child.stdout.take().ok_or_else(closed)?),
        end: Box::new(move || end(&mut child)),
    })
}

/// The program that runs, even where its file was replaced since.
fn own_program() -> io::Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    match cfg!(target_os = "linux") && own.exists() {
        true => Ok(own),
        false => std::env::current_exe(),
    }
}

fn end(child: &mut Child) -> String {
    let _ = child.kill();
    let mut said = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        let _ = pipe.take(LAST_WORDS).read_to_end(&mut said);
    }
    let _ = child.wait();
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Whether this process is a renderer.
pub fn is_renderer() -> bool {
    std::env::args_os().nth(1).as_deref() == Some(OsStr::new(ARGUMENT))
}

/// Renders what the process that started this one asks for.
pub fn render_templates() -> ExitCode {
    memory::return_freed();
    memory::never_dump();
    let meter = Meter {
        allow: memory::allow,
        allocated: memory::allocated,
    };
    let mut replies = BufWriter::new(io::stdout().lock());
    match chat::serve(&mut io::stdin().lock(), &mut replies, meter) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever would read more is gone.
        Err(_) => ExitCode::FAILURE,
    }
}
