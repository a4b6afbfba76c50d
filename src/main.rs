//! Entry point: runs the CLI and maps errors to exit codes.

use std::process::ExitCode;

use expo::io::untrusted;
use expo::kernels::memory::{self, HugePages};

mod cli;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    let speak = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // A panic that becomes an error is reported as that error.
        if !untrusted::is_guarded() {
            speak(panic);
        }
    }));
    if cli::is_renderer() {
        return cli::render_templates();
    }
    memory::keep_freed();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            cli::tell(cli::last_line(&error));
            ExitCode::from(cli::exit_code(&error))
        }
    }
}

/// `expo … | head` is not a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
