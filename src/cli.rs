//! The command line: one file per command, and the only code that prints.

mod loss;

use clap::{Parser, Subcommand};

/// Preference fine-tuning of causal language models: EXPO, DPO and their relatives.
#[derive(Parser)]
#[command(
    name = "expo",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Loss(loss::LossArgs),
}

/// Parses the arguments and runs the command. Input errors and usage errors exit with 2.
pub fn run() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Loss(args) => loss::run(&args),
    }
}
