//! `expo bandit`: the papers' synthetic experiments, as tables and figures.

use std::path::PathBuf;

use clap::Args;
use expo::config::Source;
use expo::error::{Error, Result};
use expo::lab::bandit::Experiment;
use expo::run_dir::RUN;

use super::answer;
use super::error::located;
use super::out::directory;

/// Run the papers' synthetic experiments, where the best policy is known.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct BanditArgs {
    /// Run this experiment: interpolation, preservation, constraint or theory, or a config FILE.toml
    #[arg(value_name = "EXPERIMENT", required_unless_present = "config")]
    experiment: Option<String>,

    /// Read this config instead of the experiment's own, which is in configs/bandit
    #[arg(long, value_name = "FILE", conflicts_with = "experiment")]
    config: Option<PathBuf>,

    /// Set a key of the config; may be repeated, the last value wins
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,

    /// Write tables (CSV, JSON), figures (SVG, PNG) and the config to this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Replace the results in --out; other files stay
    #[arg(long, requires = "out")]
    overwrite: bool,

    /// Print the config with every default filled in, itself a valid config, and stop
    #[arg(long)]
    print_config: bool,

    /// Print one JSON object with a list of rows per table
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
A policy is a softmax over three responses, preferences are those of a known
policy pi*, and training begins at a reference r. Any loss of pairs can be
named; lambda is its knob `lambda`, or else `beta`.

  interpolation  policies from small to large lambda: learning curves, and where
                 they end
  preservation   distance from pi* on a prompt that was good already and on a
                 bad one, over lambda
  constraint     DPO and exact RLHF as a penalty is added to both
  theory         a verdict for each loss: does it preserve, does it interpolate

Columns named `solved` are optima with exact preferences, to convergence;
`trained` is the papers' protocol, Adam on drawn pairs, as mean and standard
deviation over seeds.

In --out: summary.csv (the table printed here), the tables behind it,
results.json, config.toml, and
  interpolation  curves_small, curves_large, sweep: EXPO figures 3, 8, 4
  preservation   preservation_text, preservation_notebook: EXPO figure 5
  constraint     constraint: TYPO figure 3, right
each as .svg and .png.

Examples:
  $ expo bandit interpolation --out runs/interpolation
  $ expo bandit interpolation --set losses.names=dpo,simpo \\
      --set train.num_seeds=20
  $ expo bandit interpolation \\
      --set losses.settings.fdpo.knobs.divergence=forward_kl
  $ expo bandit preservation --set train.order=shuffle --json
  $ expo bandit theory";

/// Runs the command.
pub fn run(args: &BanditArgs) -> anyhow::Result<()> {
    let source = match (&args.config, &args.experiment) {
        (Some(path), _) => Source::open(path, &args.set)?,
        (None, Some(path)) if path.ends_with(".toml") => Source::open(path.as_ref(), &args.set)?,
        (None, Some(name)) => Experiment::built_in_source(name, &args.set)?,
        (None, None) => unreachable!("clap asks for one"),
    };
    located(&source, print(args, &Experiment::of(&source, &args.set)?))
}

fn print(args: &BanditArgs, experiment: &Experiment) -> anyhow::Result<()> {
    if args.print_config {
        answer(&experiment.to_toml()?)?;
        return Ok(());
    }
    check_out(args)?;
    let report = experiment.run()?;
    let mut text = match args.json {
        true => format!("{}\n", report.to_json()),
        false => report.summary.to_text(),
    };
    if let Some(out) = &args.out {
        let files = report.write(out, &experiment.to_toml()?, args.overwrite)?;
        if !args.json {
            text += &format!("\n{}: {}\n", out.display(), files.join(", "));
        }
    }
    answer(&text)?;
    Ok(())
}

/// Before anything is computed: results are not replaced unasked.
fn check_out(args: &BanditArgs) -> Result<()> {
    let Some(out) = &args.out else {
        return Ok(());
    };
    let at = |error: Error| error.at("--out");
    directory(out).map_err(at)?;
    if out.join(RUN).exists() {
        return Err(Error::input("holds a training run")
            .hint("name another directory")
            .at(format!("--out {}", out.display())));
    }
    let known = ["results.json", "summary.csv", "config.toml"];
    let mut there = known.iter().filter(|name| out.join(name).exists());
    match there.next() {
        Some(name) if !args.overwrite => Err(Error::input(format!("holds a {name} already"))
            .hint("name another directory, or add --overwrite")
            .at(format!("--out {}", out.display()))),
        _ => Ok(()),
    }
}
