//! `expo sweep`: many runs from one file, and one comparison.

use std::fmt::Write;
use std::path::Path;

use clap::Args;
use expo::config::{PlannedRun, SweepConfig};
use expo::error::{Error, Result};
use expo::io::durable::{self, check_plain, write_file};
use expo::run_dir::RUN;
use expo::session::StopCondition;
use expo::train::{Outcome, SweepStopped, comparison, frontier, over_seeds, sweep};
use serde_json::{Value, json};

use super::args::ConfigArgs;
use super::dispatch::DeviceRequest;
use super::progress::Progress;
use super::stop::{self, Limit, limited, on_signal};
use super::train::ended;
use super::{answer, launcher};

/// Train with several losses and settings, and compare them.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct SweepArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// List the runs, without training
    #[arg(long)]
    list: bool,

    /// Stop after this much wall-clock time, e.g. 3h30m: finish the step, save a checkpoint, exit
    /// with code 0; resume with run.overwrite = false
    #[arg(long, value_name = "TIME", conflicts_with = "list")]
    max_time: Option<Limit>,

    /// Print one JSON list: an object per run, then, with several values of run.seed, one per setting
    /// and figure with `seeds`, `mean`, `sd` and the 95% interval; with --list an object per run
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
A sweep is the config of a training run without its loss, or the name of one,
and entries of what varies. Of each entry every combination of its values is a
run:
  base = \"configs/quickstart.toml\"     # its sections, under those of this file
  [run]
  output_dir = \"runs/sweep\"
  [[sweep]]
  loss = [\"dpo\", \"ipo\"]
  beta = [0.1, 0.5, 1.0]               # a knob of the loss
  [[sweep]]
  loss = \"cexpo\"
  lambda = [0.01, 0.05, 0.2]
  optimizer.learning_rate = [1e-4, 3e-4]   # any key of a run

Everything else is the same for all: model, rows, their order, the reference's
log-probs, which are scored once. Runs are trained one after the other, each in
a directory of its own in run.output_dir, where it is a run like any other. A
finished run is not trained again: run the same command to resume an interrupted
sweep, or after adding entries. A directory that holds a run with another config
is an error before anything is trained; --set run.overwrite=true trains all of
them anew. A run that meets a value that is not
finite has no figures; the others are trained all the same.

To compare over seeds, list them: run.seed = [0, 1, 2]. The comparison then also
has, for each setting and figure, the mean over its seeds, the standard
deviation (n - 1) and the 95% interval of the mean by Student's t. To use
several GPUs or machines, run parts of the entries in sweeps of their own.

In run.output_dir:
  sweep.csv, sweep.json        a row per run: the last evaluation and, on
                               stories, the last samples
  sweep_seeds.csv              with several seeds: a row per setting and figure
  frontier.svg, frontier.png   what was gained against the divergence from the
                               reference; where the runs have none in common,
                               against the log-ratio of the chosen answers

Examples:
  $ expo sweep --config configs/sweep_quickstart.toml --list
  $ expo sweep --config configs/sweep_quickstart.toml";

impl SweepArgs {
    /// The device that the runs ask for.
    pub fn device(&self) -> Option<DeviceRequest> {
        let (path, overrides) = self.config.parts();
        match self.list {
            true => None,
            false => DeviceRequest::by_sweep(path, overrides),
        }
    }
}

/// Runs the command.
pub fn run(args: &SweepArgs) -> anyhow::Result<()> {
    let (path, overrides) = args.config.parts();
    let until = limited(args.max_time);
    let config = SweepConfig::open(path, overrides)?;
    if args.list {
        return answer(&match args.json {
            true => format!("{}\n", listed(&config)),
            false => list(&config),
        });
    }
    check_tables(&config.output_dir)?;
    let mut progress = Progress::new();
    let until = StopCondition {
        signal: on_signal()?,
        ..until
    };
    let ranks = launcher::ranks();
    let outcome = sweep(&config, &until, &ranks, &mut |event| progress.show(event));
    progress.close();
    let (outcomes, stopped) = outcome?;
    if let Some(stopped) = stopped {
        let how = match config.overwrite {
            false => "run the same command to resume",
            true => "resume with --set run.overwrite=false",
        };
        return match stopped {
            SweepStopped::InRun(stopped) => ended(&stopped, how),
            SweepStopped::BeforeRun {
                reason,
                done,
                total,
            } => {
                let at = format!("after {done} of {total} runs");
                let then = format!("saved in {}; {how}", config.output_dir.display());
                stop::ended(reason, &at, &then)
            }
        };
    }
    let table = comparison(&outcomes);
    let figure = frontier(&config, &outcomes)?;
    let seeds = over_seeds(&outcomes);
    let mut rows = table.to_json();
    if let (Some(rows), Some(seeds)) = (rows.as_array_mut(), &seeds) {
        rows.extend(seeds.to_json().as_array().cloned().unwrap_or_default());
    }
    let json = format!("{rows}\n");
    let folder = &config.output_dir;
    let write = |name: &str, contents: &[u8]| write_file(&folder.join(name), contents);
    if ranks.is_first() {
        write("sweep.csv", table.to_csv().as_bytes())?;
        write("sweep.json", json.as_bytes())?;
        if let Some(seeds) = &seeds {
            write("sweep_seeds.csv", seeds.to_csv().as_bytes())?;
        }
        if let Some(figure) = figure {
            write("frontier.svg", figure.to_svg().as_bytes())?;
            write("frontier.png", &figure.to_png())?;
        }
    }
    match args.json {
        true => answer(&json)?,
        false => {
            let seeds = seeds.map_or(String::new(), |seeds| format!("\n{}", seeds.to_text()));
            let note = if several_losses(&outcomes) { UNITS } else { "" };
            let (runs, folder) = (table.to_text(), folder.display());
            answer(&format!("{runs}{seeds}{note}\noutput {folder}\n"))?;
        }
    }
    failed(&outcomes)
}

/// What a sweep writes at its end.
const TABLES: [&str; 5] = [
    "sweep.csv",
    "sweep.json",
    "sweep_seeds.csv",
    "frontier.svg",
    "frontier.png",
];

/// What a reader of a table of several losses has to know.
const UNITS: &str = "\nLosses and margins of different objectives are in units of their own and are not comparable;\n\
                     accuracies, and figures in nats, are.\n";

fn several_losses(outcomes: &[Outcome]) -> bool {
    outcomes
        .iter()
        .any(|outcome| outcome.loss != outcomes[0].loss)
}

/// Refuses a directory whose files of these names are not a sweep's.
fn check_tables(folder: &Path) -> Result<()> {
    let entries = durable::list(folder).unwrap_or_default();
    let is_sweep = entries.iter().any(|entry| entry.join(RUN).exists());
    for path in TABLES.map(|name| folder.join(name)) {
        check_plain(&path)?;
        if path.exists() && !is_sweep {
            return Err(Error::input("already exists, and is not a sweep's")
                .at(path.display())
                .hint("choose another run.output_dir"));
        }
    }
    Ok(())
}

/// The error of the runs that met a value that is not finite.
fn failed(outcomes: &[Outcome]) -> anyhow::Result<()> {
    let say = |outcome: &Outcome| {
        let what = outcome.failure.as_ref()?;
        Some(format!("{} {}: {what}", outcome.loss, outcome.settings))
    };
    let all: Vec<String> = outcomes.iter().filter_map(say).collect();
    match all.is_empty() {
        true => Ok(()),
        false => Err(Error::non_finite(all.join("; ")).into()),
    }
}

fn listed(config: &SweepConfig) -> Value {
    let run = |run: &PlannedRun| {
        json!({
            "loss": run.loss,
            "settings": run.settings,
            "output_dir": run.config.run.output_dir,
        })
    };
    config.runs.iter().map(run).collect()
}

fn list(config: &SweepConfig) -> String {
    let mut text = String::new();
    let widest = |of: fn(&PlannedRun) -> usize| config.runs.iter().map(of).max().unwrap_or(0);
    let loss = widest(|run| run.loss.chars().count());
    let settings = widest(|run| run.settings.chars().count());
    for run in &config.runs {
        let folder = run.config.run.output_dir.display();
        let _ = writeln!(
            text,
            "{:<loss$}  {:<settings$}  {folder}",
            run.loss, run.settings
        );
    }
    text
}
