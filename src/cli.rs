//! The command line: one file per command, and the only code that prints.

mod args;
mod bandit;
mod completions;
mod data;
mod error;
mod eval;
mod init;
mod loss;
mod losses;
mod plan;
mod progress;
mod report;
mod sample;
mod score;
mod sft;
mod stop;
mod sweep;
mod train;
mod verify;

use std::io::Write;

use anyhow::Context;
use clap::{Parser, Subcommand};

pub use error::{exit_code, message};

/// Preference fine-tuning of causal language models: EXPO, DPO and their relatives.
#[derive(Parser)]
#[command(
    name = "expo",
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = EXIT_CODES
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Results go to standard output, progress and messages to standard error.
Exit code: 0 done, 1 failed, 2 wrong input, 3 a value that is not finite, 128 + N ended by signal N.";

#[derive(Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Sft(sft::SftArgs),
    Plan(plan::PlanArgs),
    Sample(Box<sample::SampleArgs>),
    Sweep(sweep::SweepArgs),
    Score(score::ScoreArgs),
    Eval(eval::EvalArgs),
    Report(report::ReportArgs),
    Verify(verify::VerifyArgs),
    Data(data::DataArgs),
    Init(init::InitArgs),
    Loss(loss::LossArgs),
    Losses(losses::LossesArgs),
    Bandit(bandit::BanditArgs),
    Completions(completions::CompletionsArgs),
}

/// Parses the arguments and runs the command. Input errors and usage errors exit with 2.
pub fn run() -> anyhow::Result<()> {
    stop::outlive_size_limits()?;
    match Cli::parse().command {
        Command::Train(args) => train::run(args),
        Command::Sft(args) => sft::run(args),
        Command::Plan(args) => plan::run(&args),
        Command::Sample(args) => sample::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Score(args) => score::run(args),
        Command::Eval(args) => eval::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Loss(args) => loss::run(&args),
        Command::Losses(args) => losses::run(&args),
        Command::Bandit(args) => bandit::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Writes a result to standard output.
fn answer(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("standard output")
}

/// A count with a comma after every three digits.
fn grouped(count: usize) -> String {
    expo::report::grouped(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1234567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
