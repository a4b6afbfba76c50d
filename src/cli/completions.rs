//! `expo completions`: scripts that complete commands and options in a shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct CompletionsArgs {
    /// Complete commands and flags in this shell
    shell: Shell,
}

const HELP: &str = "\
Example:
  $ expo completions bash > ~/.local/share/bash-completion/completions/expo";

/// Runs the command.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    // The generator panics where it cannot write, which a vector always lets it.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "expo", &mut script);
    super::answer(&String::from_utf8_lossy(&script))?;
    Ok(())
}
