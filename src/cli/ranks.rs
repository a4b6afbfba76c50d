//! `expo ranks`: the processes that compute together.

mod check;

use clap::{Args, Subcommand};

use super::dispatch::DeviceRequest;

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

impl RanksArgs {
    /// The device whose memory is exchanged.
    pub fn device(&self) -> DeviceRequest {
        match &self.what {
            What::Check(args) => args.device(),
        }
    }
}

/// Runs the command.
pub fn run(args: &RanksArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Check(args) => check::run(args),
    }
}
