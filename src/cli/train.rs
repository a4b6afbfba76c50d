//! `expo train`: a run from a config, and its summary.

use std::fmt::Write;

use clap::Args;
use expo::config::Config;
use expo::error::Result;
use expo::run_dir::{Record, SummaryRecord};
use expo::session::{StopCondition, Stopped};
use expo::train::{End, Opened, Resume, Run, Summary};
use serde_json::Value;

use super::args::ConfigArgs;
use super::dispatch::DeviceRequest;
use super::error::located;
use super::progress::{Progress, clock};
use super::stop::{Limit, limited, on_signal};
use super::{answer, grouped};

/// Train a model on preferences.
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
Opens the model, its tokenizer and the rows, and says what became of the rows. Scores the reference
once, by default the model itself before its first update; the log-probs are kept in the user's
cache folder (run.cache_dir) and found again by content. Then trains, with an evaluation before the
first step, every run.eval_steps and after the last. Nothing is written to run.output_dir before
everything that the config names was opened and checked; where it holds a run, that run's lock is
taken first.

A config:
  [model]
  model_name_or_path = \"EleutherAI/pythia-2.8b\"   # a folder, or a name on the hub
  [data]
  format = \"hh\"                                   # or leave it out: as the columns show
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

cEXPO reads samples of the reference: data.samples = \"FILE\" is a file of expo sample, \"auto\" has
them drawn first, as a section [sample] says, and kept like the log-probs.

Overrides name a key by its section: --set optimizer.learning_rate=5e-7. A word needs no quotes.
--set loss=ipo takes another loss with its defaults in place of the config's, and --set loss.ipo.beta=0.2
then sets its knob, in any order; of two --set loss=NAME the last one wins. --set loss.sft.weight=0.1 adds
a term to a sum; every loss of a sum has a weight. Any other knob of a loss that the config does not have
is an error.

In run.output_dir:
  config.json, model.safetensors, tokenizer.json, ...   the final model, for transformers and expo;
                                                        none with run.save_model = false
  checkpoint-STEP/                                      the same every run.save_steps, and all that it
                                                        takes to go on from there
  config.toml, run.json                                 what was run, on what
  metrics.jsonl                                         a line per run.logging_steps
  timings.jsonl                                         likewise: seconds, rows and tokens per second,
                                                        on Linux cpu_seconds and peak_memory_bytes,
                                                        on a GPU peak_gpu_memory_bytes; step 0 is the reference's scoring pass
  summary.json                                          the first and the last figures, at the end
  generations.jsonl                                     run.eval_prompts answers of each evaluation
  margins.json                                          pairs with the extreme margins of the last one
  tensorboard/                                          event files, with run.report_to = [\"tensorboard\"]
  non_finite.jsonl                                      steps with a value that was not finite: what,
                                                        and the rows with their log-probs
  MANIFEST.json, LATEST, run.lock                       checksums, the newest checkpoint, the owner

A run that was interrupted goes on when the command is given again (--resume auto), from its newest
checkpoint that is whole, and ends with the bytes it would have had: give run.save_steps. A run that is
finished is left alone. A run whose final model, or checkpoint with run.save_steps, has no room on the
disk is refused before the model is loaded. What must not have changed is in run.json; --allow-change lets a key through.
The first INT or TERM ends the run after its step with a checkpoint, the second at once.
run.save_total_limit keeps the newest checkpoints, run.metric_for_best_model (e.g. \"eval_loss\") the
best one, too. A value that is not finite stops the run before its update; run.max_non_finite_steps lets
that many steps pass without one.

expo report makes a page of it all.

--profile prints the seconds of each part of the steps: products of matrices, the head's logits,
attention, other kernels, the optimizer, making batches, all else; the share of the threads' time
that they were idle; and the floating-point operations per second in products, beside those of a
product of 1024 x 1024 matrices on this machine, 8192 x 8192 on a GPU, which is waited for after
each part. What the run writes is the same.

Environment: HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE as in Python's hub
library; XDG_CACHE_HOME. EXPO_CUDA=never does not run the expo-cuda beside expo, EXPO_CUDA=always runs
it without asking the NVIDIA driver for a GPU.

Examples:
  $ expo train run.toml
  $ expo train --config run.toml --set loss.dpo.weight=1 --set loss.sft.weight=0.1
  $ expo train --config run.toml --set run.seed=1 --set run.output_dir=runs/seed1 2> log.txt
  $ expo train --config run.toml --set loss=kto --print-config > kto.toml
  $ expo train --config run.toml --set run.max_steps=20 --profile
  $ expo train --config run.toml --max-time 7h30m
  $ expo train --config run.toml --set run.max_steps=9000 --allow-change run.max_steps
  $ expo train --config run.toml --resume runs/dpo/checkpoint-200 --set run.output_dir=runs/branch";

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
                (Resume::Auto, _) => "the same command goes on",
                (_, false) => "go on with --resume auto",
                (_, true) => "go on with --resume auto --set run.overwrite=false",
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
    Ok(serde_json::to_string(summary)? + "\n")
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
    let opened = Run::open_with(config, resume, &args.allow_change, &mut |event| {
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

/// Says where a run that ended early can be gone on from, and how.
pub fn ended(stopped: &Stopped, how: &str) -> anyhow::Result<()> {
    let (step, steps) = (stopped.step, stopped.steps);
    let saved = stopped.checkpoint.display();
    let what = format!("ended after step {step} of {steps}, saved {saved}; {how}");
    super::stop::ended(stopped.reason, &what)
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
        let _ = writeln!(text, "  {key_text:<26}{first:>14}{last:>14}");
    }
}
