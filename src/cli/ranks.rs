//! `expo ranks`: the processes that compute together.

mod check;

use clap::{Args, Subcommand};

/// Check the processes that a launcher starts
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct RanksArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Check(check::CheckArgs),
}

/// Runs the command.
pub fn run(args: &RanksArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Check(args) => check::run(args),
    }
}
