//! `expo train`: a run from a config, and its summary.

use std::fmt::Write;

use clap::Args;
use expo::config::Config;
use expo::error::Result;
use expo::io::durable::json_line;
use expo::run_dir::{Record, SummaryRecord};
use expo::session::{StopCondition, Stopped};
use expo::train::{End, Opened, Resume, Run, Summary};
use serde_json::Value;

use super::args::ConfigArgs;
use super::dispatch::DeviceRequest;
use super::error::located;
use super::progress::{Progress, clock};
use super::stop::{Limit, limited, on_signal};
use super::terminal::{width, wrap};
use super::{answer, grouped, launcher};

/// Train a model on preferences
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct TrainArgs {
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Print the config with all defaults, itself a valid config, and exit
    #[arg(long)]
    print_config: bool,

    /// Resume the run in run.output_dir from its latest valid checkpoint (auto), start over (never),
    /// or resume from a directory checkpoint-STEP [default: auto; never if run.overwrite is true]
    #[arg(long, value_name = "auto|never|PATH")]
    resume: Option<String>,

    /// Allow these config keys, or all of a section, to differ from the original run when resuming
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    allow_change: Vec<String>,

    /// Stop after this much wall-clock time, e.g. 3h30m: finish the step, save a checkpoint, exit
    /// with code 0
    #[arg(long, value_name = "TIME")]
    max_time: Option<Limit>,

    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,

    /// Print a table of where the time of the steps goes
    #[arg(long, conflicts_with = "json")]
    profile: bool,
}

const HELP: &str = "\
Opens model, tokenizer and rows, and reports how many rows are used and why
others are not. Scores the reference once, by default the model itself before
its first update; its log-probs are cached by content (run.cache_dir). Then
trains, with an evaluation before the first step, every run.eval_steps and after
the last step. Nothing is written to run.output_dir before everything that the
config names was opened and checked.

A config:
  [model]
  model_name_or_path = \"EleutherAI/pythia-2.8b\"   # a directory, or a hub name
  [data]
  format = \"hh\"                                   # or left out: by the columns
  train = \"train.jsonl.gz\"
  eval = \"test.jsonl.gz\"
  [loss.dpo]                                      # or another of `expo losses`
  beta = 0.1
  [batch]
  batch_size = 40                                 # rows per optimizer step
  [optimizer]
  optim = \"adam\"
  learning_rate = 1e-6
  [run]
  output_dir = \"runs/dpo\"

cEXPO reads samples of the reference: data.samples = \"FILE\" is a file of
expo sample; with \"auto\" the run draws them first, by its section [sample], and
caches them.

Overrides name a key by its section: --set optimizer.learning_rate=5e-7. A word
needs no quotes. --set loss=ipo takes another loss with its defaults in place of
the config's, and --set loss.ipo.beta=0.2 then sets its knob, in any order; of
two --set loss=NAME the last one wins. --set loss.sft.weight=0.1 adds a term to
a sum; every loss of a sum has a weight. Any other knob of a loss that the
config does not have is an error.

In run.output_dir:
  config.json, model.safetensors, tokenizer.json, ...
                       the final model, for transformers and expo; none with
                       run.save_model = false
  checkpoint-STEP/     the same and the training state, every run.save_steps
  config.toml          the resolved config
  run.json             what was run, on which model and rows
  metrics.jsonl        a line per run.logging_steps, and per evaluation
  timings.jsonl        seconds, throughput, memory; step 0 is the scoring of the
                       reference
  summary.json         first and last metrics, written at the end
  generations.jsonl    answers to run.eval_prompts prompts at each evaluation
  margins.json         pairs with the extreme margins of the last evaluation
  tensorboard/         event files, with run.report_to = [\"tensorboard\"]
  non_finite.jsonl     steps with a non-finite value, with rows and log-probs
  MANIFEST.json, LATEST, run.lock
                       checksums, name of the latest checkpoint, owner

The same command resumes an interrupted run from its latest valid checkpoint,
and the result has the same bytes as without the interruption; set
run.save_steps. A finished run is left alone. run.json records what must not
change; --allow-change permits a change of a key. The first INT or TERM ends the
run after its step with a checkpoint, the second at once. expo guide resume has
the details.

run.save_total_limit keeps the latest checkpoints, run.metric_for_best_model
(e.g. \"eval_loss\") also the best one. A run without disk space for its final
model, or a checkpoint with run.save_steps, is refused before the model is
loaded. A non-finite value stops the run before its update;
run.max_non_finite_steps skips up to that many such steps.

expo report makes a page of a run.

--profile prints the seconds of each part of the steps (matmuls, logits of the
head, attention, other kernels, optimizer, batches, rest), the idle share of the
threads, and the FLOP/s in matmuls beside those of a 1024 x 1024 matmul on this
machine (8192 x 8192 on a GPU, which is synchronized after each part). The files
of the run are the same.

Environment: HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE as
in Python; XDG_CACHE_HOME. EXPO_CUDA=never stays with the CPU program,
EXPO_CUDA=always runs expo-cuda without asking the driver for a GPU.

Examples:
  $ expo train run.toml
  $ expo train run.toml --set loss.dpo.weight=1 --set loss.sft.weight=0.1
  $ expo train run.toml --set run.seed=1 --set run.output_dir=runs/seed1
  $ expo train run.toml --set loss=kto --print-config > kto.toml
  $ expo train run.toml --set run.max_steps=20 --profile
  $ expo train run.toml --max-time 7h30m
  $ expo train run.toml --set run.max_steps=9000 --allow-change run.max_steps
  $ expo train run.toml --resume runs/dpo/checkpoint-200 \\
      --set run.output_dir=runs/branch";

impl TrainArgs {
    /// The device that the run asks for.
    pub fn device(&self) -> Option<DeviceRequest> {
        let (path, overrides) = self.config.parts();
        match self.print_config {
            true => None,
            false => DeviceRequest::by_config(path, overrides),
        }
    }
}

/// Runs the command.
pub fn run(args: TrainArgs) -> anyhow::Result<()> {
    let source = args.config.source()?;
    located(&source, train(Config::of(&source)?, &args))
}

/// Runs what a config says.
pub fn train(config: Config, args: &TrainArgs) -> anyhow::Result<()> {
    if args.print_config {
        answer(&config.to_toml()?)?;
        return Ok(());
    }
    let resume = match args.resume.as_deref() {
        None if config.run.overwrite => Resume::Never,
        None | Some("auto") => Resume::Auto,
        Some("never") => Resume::Never,
        Some(path) => Resume::From(path.into()),
    };
    let overwrite = config.run.overwrite;
    let mut progress = Progress::new();
    let output_dir = config.run.output_dir.clone();
    let outcome = open_and_train(config, &resume, args, &mut progress);
    progress.close();
    let text = match (outcome?, args.json) {
        (Ended::Now(End::Stopped(stopped)), _) => {
            let how = match (&resume, overwrite) {
                (Resume::Auto, _) => "run the same command to resume",
                (_, false) => "resume with --resume auto",
                (_, true) => "resume with --resume auto --set run.overwrite=false",
            };
            return ended(&stopped, how);
        }
        (Ended::Now(End::Finished(summary)), true) => line(&summary.record())?,
        (Ended::Now(End::Finished(summary)), false) => table(&summary),
        (Ended::Before(summary), true) => line(&summary)?,
        (Ended::Before(_), false) => {
            let output_dir = output_dir.display();
            format!("the run is finished; its figures are in summary.json\n\noutput {output_dir}\n")
        }
    };
    answer(&text)?;
    Ok(())
}

/// A summary as one line of JSON.
fn line(summary: &SummaryRecord) -> anyhow::Result<String> {
    Ok(json_line(summary)?)
}

/// When a run ended, and how.
enum Ended {
    Now(End),
    Before(Box<SummaryRecord>),
}

fn open_and_train(
    config: Config,
    resume: &Resume,
    args: &TrainArgs,
    progress: &mut Progress,
) -> Result<Ended> {
    let until = limited(args.max_time);
    let (allow, ranks) = (&args.allow_change, launcher::ranks());
    let opened = Run::open_on(config, resume, allow, &ranks, &mut |event| {
        progress.show(event)
    })?;
    let mut run = match opened {
        Opened::Run(run) => run,
        Opened::Finished(summary) => return Ok(Ended::Before(summary)),
    };
    run.profile = args.profile;
    run.until = StopCondition {
        signal: on_signal()?,
        ..until
    };
    Ok(Ended::Now(run.train(&mut |event| progress.show(event))?))
}

/// Says where a run that was interrupted is saved, and how to resume it.
pub fn ended(stopped: &Stopped, how: &str) -> anyhow::Result<()> {
    let at = format!("after step {} of {}", stopped.step, stopped.steps);
    let then = format!("saved in {}; {how}", stopped.checkpoint.display());
    super::stop::ended(stopped.reason, &at, &then)
}

fn table(summary: &Summary) -> String {
    let mut text = String::new();
    let (rows, tokens) = summary.session;
    let (rows, tokens) = (rows as f64, tokens as f64);
    for (name, value) in [
        ("steps", summary.steps.to_string()),
        ("rows", grouped(summary.rows)),
        ("tokens", grouped(summary.tokens)),
        ("time", clock(summary.seconds)),
        ("rows/s", format!("{:.2}", rows / summary.seconds)),
        ("tokens/s", format!("{:.0}", tokens / summary.seconds)),
    ] {
        let _ = writeln!(text, "{name:<28}{value:>14}");
    }
    for (name, records) in [
        ("train", Some(&summary.train)),
        ("eval", summary.eval.as_ref()),
    ] {
        if let Some((first, last)) = records {
            text.push('\n');
            compare(name, first, last, &mut text);
        }
    }
    if !summary.findings.is_empty() {
        text.push('\n');
        for finding in &summary.findings {
            let _ = writeln!(text, "{}", wrap(finding, width(), "", "  "));
        }
    }
    if let Some(story) = &summary.story {
        let _ = write!(text, "\n{story}");
    }
    if let Some(profile) = &summary.profile {
        let _ = write!(text, "\n{profile}");
    }
    if let Some((path, value)) = &summary.best {
        let _ = writeln!(text, "\nbest {}, {value:.4}", path.display());
    }
    let _ = writeln!(text, "\noutput {}", summary.output_dir.display());
    text
}

/// The figures of two records side by side.
fn compare(name: &str, first: &Record, last: &Record, text: &mut String) {
    let step = |record: &Record| format!("step {}", record.get("step").unwrap_or(&Value::Null));
    let _ = writeln!(text, "{name:<28}{:>14}{:>14}", step(first), step(last));
    let position = ["step", "epoch", "num_tokens"];
    for (key, value) in last
        .iter()
        .filter(|(key, _)| !position.contains(&key.as_str()))
    {
        let figure = |value: Option<&Value>| match value.and_then(Value::as_f64) {
            Some(x) if x != 0.0 && x.abs() < 1e-2 => format!("{x:.3e}"),
            Some(x) => format!("{x:.4}"),
            None => "-".to_owned(),
        };
        let key_text = key.trim_start_matches("eval_");
        let (first, last) = (figure(first.get(key)), figure(Some(value)));
        let _ = writeln!(text, "  {key_text:<28}{first:>12}{last:>14}");
    }
}
