//! The command line: one file per command, and the only code that prints.

mod args;
mod bandit;
mod completions;
mod data;
mod dispatch;
mod error;
mod eval;
mod guide;
mod init;
mod launcher;
mod local;
mod loss;
mod losses;
mod merge;
mod out;
mod plan;
mod progress;
mod ranks;
mod renderer;
mod report;
mod sample;
mod score;
mod sft;
mod stop;
mod sweep;
mod terminal;
mod train;
mod usage;
mod verify;

use std::io::Write;
use std::sync::OnceLock;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use dispatch::DeviceRequest;
pub use error::{exit_code, last_line};
use expo::kernels::device::CUDA;
use expo::kernels::instructions;
use expo::kernels::threads::{self, Threads};
use expo::report::grouped;
use launcher::Work;
pub use renderer::{is_renderer, render_templates};
pub use terminal::tell;
use terminal::{is_silent, printable};

/// Preference fine-tuning of causal language models: EXPO, DPO and their relatives.
#[derive(Parser)]
#[command(
    name = "expo",
    version = version(),
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

Exit codes, of every command:
  0        done; or out of time (--max-time), with everything saved
  1        failed: I/O, a device, a server; a damaged file (verify); no win rate
           (eval judge); a warning (data lint --strict)
  2        wrong input: a file, a config value, a flag; a run that does not fit
           (plan); out of memory
  3        a loss, log-prob, gradient or weight that is not finite
  75       a rank was lost or late, or an exchange between ranks failed: start
           all of them again
  128 + N  ended by signal N, with everything saved: 130 by INT, 143 by TERM";

/// Every command with a page of help refers to the exit codes, which stand in one place.
fn with_exit_codes(command: clap::Command) -> clap::Command {
    let command = command.mut_subcommands(with_exit_codes);
    match command.get_after_long_help().map(ToString::to_string) {
        Some(help) => command.after_long_help(format!("{help}\n\nExit codes: see expo --help.")),
        None => command,
    }
}

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
    Merge(merge::MergeArgs),
    Loss(loss::LossArgs),
    Losses(losses::LossesArgs),
    Bandit(bandit::BanditArgs),
    Ranks(ranks::RanksArgs),
    Guide(guide::GuideArgs),
    Completions(completions::CompletionsArgs),
}

/// The version, the build where `EXPO_BUILD` named one to the compiler, and whether it has CUDA.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let build = option_env!("EXPO_BUILD").map(|build| format!(" ({build})"));
        let cuda = if CUDA { " with CUDA" } else { "" };
        let number = env!("CARGO_PKG_VERSION");
        format!("{number}{}{cuda}", build.unwrap_or_default())
    })
}

impl Command {
    /// The device that the command computes on; `None` where it computes on none.
    fn device(&self) -> Option<DeviceRequest> {
        match self {
            Self::Train(args) => args.device(),
            Self::Sft(args) => args.device(),
            Self::Sample(args) => args.device(),
            Self::Sweep(args) => args.device(),
            Self::Score(args) => args.device(),
            Self::Eval(args) => args.device(),
            Self::Ranks(args) => Some(args.device()),
            Self::Plan(_)
            | Self::Report(_)
            | Self::Verify(_)
            | Self::Data(_)
            | Self::Init(_)
            | Self::Merge(_)
            | Self::Loss(_)
            | Self::Losses(_)
            | Self::Bandit(_)
            | Self::Guide(_)
            | Self::Completions(_) => None,
        }
    }

    /// What ranks of it do.
    fn work(&self) -> Work {
        match self {
            Self::Train(_) | Self::Sft(_) | Self::Sweep(_) | Self::Score(_) => Work::Shared,
            Self::Sample(_) | Self::Eval(_) | Self::Init(_) | Self::Merge(_) | Self::Bandit(_) => {
                Work::Alone
            }
            Self::Plan(_)
            | Self::Report(_)
            | Self::Verify(_)
            | Self::Data(_)
            | Self::Loss(_)
            | Self::Losses(_)
            | Self::Ranks(_)
            | Self::Guide(_)
            | Self::Completions(_) => Work::Any,
        }
    }

    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Train(args) => train::run(args),
            Self::Sft(args) => sft::run(args),
            Self::Plan(args) => plan::run(&args),
            Self::Sample(args) => sample::run(&args),
            Self::Sweep(args) => sweep::run(&args),
            Self::Score(args) => score::run(args),
            Self::Eval(args) => eval::run(&args),
            Self::Report(args) => report::run(&args),
            Self::Verify(args) => verify::run(&args),
            Self::Data(args) => data::run(&args),
            Self::Init(args) => init::run(&args),
            Self::Merge(args) => merge::run(&args),
            Self::Loss(args) => loss::run(&args),
            Self::Losses(args) => losses::run(&args),
            Self::Bandit(args) => bandit::run(&args),
            Self::Ranks(args) => ranks::run(&args),
            Self::Guide(args) => guide::run(&args),
            Self::Completions(args) => completions::run(&args),
        }
    }
}

/// Parses the arguments and runs the command. Input errors and usage errors exit with 2.
pub fn run() -> anyhow::Result<()> {
    stop::outlive_size_limits()?;
    renderer::use_processes();
    let matches = with_exit_codes(Cli::command()).try_get_matches();
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.unwrap_or_else(|error| refuse(&error));
    if let Some(asked) = cli.command.device() {
        dispatch::hand_over(&asked)?;
        local::launch(&asked, cli.command.work())?;
    }
    instructions::check()?;
    launcher::open(cli.command.work())?;
    launcher::close(start_threads().and_then(|()| cli.command.run()))
}

/// Ends the process with help, the version, or a usage error.
fn refuse(error: &clap::Error) -> ! {
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    if let Some(text) = usage::explained(error, &arguments.collect::<Vec<_>>()) {
        tell(&text);
        std::process::exit(error.exit_code());
    }
    let text = error.to_string();
    let plain = terminal::message(&usage::worded(text.trim_end()));
    if error.use_stderr() && plain != text.trim_end() {
        tell(plain);
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// Starts the threads that work is shared among, and says where they are others than were asked for.
fn start_threads() -> anyhow::Result<()> {
    let Threads {
        wanted,
        allowed,
        started,
    } = threads::start()?;
    if wanted > allowed {
        let variable = threads::VARIABLE;
        tell(format!(
            "warning: {variable} is {wanted}; this machine's cores allow for {allowed} threads"
        ));
    }
    let asked = wanted.min(allowed);
    if started < asked {
        tell(format!(
            "warning: the system lets this process start {started} of {asked} threads; results are the same"
        ));
    }
    Ok(())
}

/// Writes a result to standard output.
fn answer(text: &str) -> anyhow::Result<()> {
    if is_silent() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    let text = printable(text);
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that is laid out by hand would be wrapped in the middle of its lines.
    #[test]
    fn every_page_of_help_fits_80_columns() {
        fn check(command: &clap::Command) {
            let pages = [command.get_after_long_help(), command.get_after_help()];
            for page in pages.into_iter().flatten() {
                for line in page.to_string().lines() {
                    // A line of JSON stays whole.
                    let fits = line.chars().count() <= 80 || line.trim_start().starts_with('{');
                    assert!(fits, "{}: {line}", command.get_name());
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_arguments_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_page_of_help_refers_to_the_exit_codes() {
        let command = with_exit_codes(Cli::command());
        let pages: Vec<&clap::Command> = command
            .get_subcommands()
            .flat_map(|command| command.get_subcommands().chain([command]))
            .collect();
        assert!(pages.len() > 15);
        for page in pages {
            let help = page.get_after_long_help().map(ToString::to_string);
            let refers = help.is_none_or(|help| help.ends_with("Exit codes: see expo --help."));
            assert!(refers, "{}", page.get_name());
        }
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            [0_usize, 999, 1000, 1234567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
