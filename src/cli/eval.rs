//! `expo eval`: what became of a model.

mod alpaca;
mod diversity;
mod judge;
mod pairs;

use clap::{Args, Subcommand};
use expo::config::{Dtype, MICRO_BATCH_TOKENS};

/// Evaluates models, samples and judgements.
#[derive(Args)]
#[command(arg_required_else_help = true)]
pub struct EvalArgs {
    #[command(subcommand)]
    what: What,
}

/// In what and where models are computed.
#[derive(Args)]
struct Computing {
    /// The most tokens computed at once.
    #[arg(long, value_name = "N", default_value_t = MICRO_BATCH_TOKENS)]
    micro_batch_tokens: usize,

    /// f32, or bf16: operands of products are, on a GPU weights and activations too.
    #[arg(long, default_value = "f32")]
    dtype: Dtype,

    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
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
