//! `expo eval`: what became of a model.

mod alpaca;
mod diversity;
mod judge;
mod pairs;

use clap::{Args, Subcommand};

/// Evaluates models, samples and judgements.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct EvalArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Pairs(pairs::PairsArgs),
    Diversity(diversity::DiversityArgs),
    Judge(Box<judge::JudgeArgs>),
    Alpaca(alpaca::AlpacaArgs),
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Pairs(args) => pairs::run(args),
        What::Diversity(args) => diversity::run(args),
        What::Judge(args) => judge::run(args),
        What::Alpaca(args) => alpaca::run(args),
    }
}
