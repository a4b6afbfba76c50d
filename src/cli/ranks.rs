//! `expo ranks`: the processes that compute together.

mod check;

use clap::{Args, Subcommand};
use expo::kernels::ranks::Ranks;

use super::error::{exit_code, message};
use super::tell;

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

/// Ends the command at all ranks: regularly, or with an error of this rank, which ends the others, too.
pub fn end(ranks: &Ranks, result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result.and_then(|()| Ok(ranks.finalize()?)) {
        Err(error) if ranks.size() > 1 => {
            tell(format!("error: rank {}: {}", ranks.rank(), message(&error)));
            ranks.abort(exit_code(&error))
        }
        result => result,
    }
}

/// A result that is the same at all ranks. Of an error rank 0 alone speaks; then all end.
pub fn shared<T>(ranks: &Ranks, result: expo::error::Result<T>) -> anyhow::Result<T> {
    use expo::error::Kind;
    let error = match result {
        Err(error) if ranks.size() > 1 && *error.kind() != Kind::Rank => error.into(),
        result => return Ok(result?),
    };
    let code = exit_code(&error);
    if ranks.is_first() {
        tell(format!("error: {}", message(&error)));
    }
    // A launcher ends all processes when the first one fails: not before it was said.
    ranks.finalize()?;
    std::process::exit(code.into())
}
