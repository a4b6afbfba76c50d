//! `expo eval`: preference accuracy, diversity, judge win rate, AlpacaEval.

mod alpaca;
mod diversity;
mod judge;
mod pairs;

use clap::{Args, Subcommand};

use super::dispatch::DeviceRequest;

/// Evaluate models, samples and judgements.
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

impl EvalArgs {
    /// The device that the evaluation asks for; `None` where it computes no model.
    pub fn device(&self) -> Option<DeviceRequest> {
        match &self.what {
            What::Pairs(args) => Some(args.device()),
            What::Diversity(args) => args.device(),
            What::Judge(args) => args.device(),
            What::Alpaca(_) => None,
        }
    }
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
