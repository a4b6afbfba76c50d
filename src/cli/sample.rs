//! `expo sample`: responses drawn from a model, into a file or onto the terminal.

use std::fmt::Write;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use expo::config::{Dtype, ModelConfig, PromptSource, SamplingConfig};
use expo::data::format::Format;
use expo::data::{Files, TokenizeConfig};
use expo::error::{Error, Result};
use expo::kernels::memory::peak;
use expo::kernels::rates::read_rate;
use expo::model::sampling::SampleConfig;
use expo::sample::{Existing, Target, TextPrompt, Written, sample_run, sample_text};
use expo::session::StopCondition;
use serde_json::json;

use super::progress::Progress;
use super::stop::{Limit, ended, limited, on_signal};
use super::{answer, grouped};

/// Draws responses from a model.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct SampleArgs {
    /// A config with [model], [data] and [sample], or a training run's with data.samples = "auto".
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    config: Option<PathBuf>,

    /// With --config: sets a key of it; may be given several times, the later one wins.
    #[arg(long, value_name = "SECTION.KEY=VALUE", requires = "config")]
    set: Vec<String>,

    /// With --config: prints it with every default filled in, and stops.
    #[arg(long, requires = "config")]
    print_config: bool,

    /// The model: a folder, or a name on the hub.
    #[arg(long, value_name = "MODEL", conflicts_with = "config")]
    model: Option<String>,

    /// The branch, tag or commit of a model on the hub.
    #[arg(long, value_name = "NAME", requires = "model")]
    revision: Option<String>,

    /// Rows of any format, whose prompts are answered, or a .txt file with a prompt on each line.
    #[arg(
        long,
        value_name = "FILE",
        requires = "model",
        conflicts_with = "prompt"
    )]
    prompts: Option<Files>,

    /// The layout of the rows; by default what the first row looks like.
    #[arg(long, requires = "prompts", value_parser = Format::named)]
    format: Option<&'static Format>,

    /// One prompt; its response goes to the terminal while it is drawn.
    #[arg(long, value_name = "TEXT", requires = "model")]
    prompt: Option<String>,

    /// Takes each prompt for the user's message and puts it through the model's chat template.
    #[arg(long, requires = "model")]
    chat: bool,

    /// Prompts that are longer are cut to so many tokens; without it they are an error.
    #[arg(long, value_name = "N", requires = "prompts")]
    max_prompt_length: Option<usize>,

    /// f32, or bf16: operands of products are, on a GPU weights and activations too [default: f32].
    #[arg(long, requires = "model")]
    dtype: Option<Dtype>,

    /// auto, cpu or cuda:N.
    #[arg(long, requires = "model")]
    device: Option<String>,

    #[command(flatten)]
    settings: Settings,

    /// Where the responses go; a file that was interrupted is gone on with.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["prompt", "print_config"], conflicts_with = "prompt")]
    out: Option<PathBuf>,

    /// A second model, whose log-prob of each response goes beside the first one's.
    #[arg(long, value_name = "MODEL", requires = "out")]
    reference: Option<String>,

    /// The branch, tag or commit of --reference on the hub.
    #[arg(long, value_name = "NAME", requires = "reference")]
    reference_revision: Option<String>,

    /// Writes the first response to each prompt there, too, in AlpacaEval's form, once all are drawn.
    #[arg(long, value_name = "FILE", requires_all = ["out", "generator"])]
    alpaca_eval: Option<PathBuf>,

    /// The model's name in --alpaca-eval.
    #[arg(long, value_name = "NAME", requires = "alpaca_eval")]
    generator: Option<String>,

    /// Goes on with a file --out that is there, which is checked (auto), or refuses it (never).
    #[arg(
        long,
        requires = "out",
        value_name = "auto|never",
        default_value = "auto"
    )]
    resume: Resume,

    /// Draws the file --out from its start.
    #[arg(long, requires = "out", conflicts_with = "resume")]
    overwrite: bool,

    /// Ends, with exit code 0, after the first token that is drawn after so long, e.g. 3h30m, from the
    /// start of the program; the same command goes on.
    #[arg(long, value_name = "TIME", requires = "out")]
    max_time: Option<Limit>,

    /// Prints what the steps read per second beside what a plain read of memory reaches here.
    #[arg(long, requires = "out")]
    profile: bool,

    /// Prints the summary as one JSON object.
    #[arg(long, conflicts_with = "prompt")]
    json: bool,
}

/// What becomes of a file that is there.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Resume {
    Auto,
    Never,
}

/// What a config has in `[sample]`.
#[derive(Args)]
struct Settings {
    /// Logits are divided by it [default: 1].
    #[arg(long, value_name = "X", conflicts_with = "config")]
    temperature: Option<f64>,

    /// Draws from so many most likely tokens only [default: 0, all].
    #[arg(long, value_name = "N", conflicts_with = "config")]
    top_k: Option<usize>,

    /// Draws from the smallest set of most likely tokens whose mass reaches it [default: 1].
    #[arg(long, value_name = "X", conflicts_with = "config")]
    top_p: Option<f64>,

    /// Draws from tokens that are at least so likely as the most likely one times it [default: 0].
    #[arg(long, value_name = "X", conflicts_with = "config")]
    min_p: Option<f64>,

    /// Makes tokens less likely that prompt or response have already [default: 1, off].
    #[arg(long, value_name = "X", conflicts_with = "config")]
    repetition_penalty: Option<f64>,

    /// Takes the most likely token each time.
    #[arg(long, conflicts_with = "config")]
    greedy: bool,

    /// Ends a response before this text; may be given several times.
    #[arg(long, value_name = "TEXT", conflicts_with = "config")]
    stop: Vec<String>,

    /// The most tokens of a response [default: 256].
    #[arg(long, value_name = "N", conflicts_with = "config")]
    max_new_tokens: Option<usize>,

    /// Responses per prompt [default: 1].
    #[arg(long, value_name = "N", conflicts_with = "config")]
    num_samples: Option<usize>,

    /// The seed of the draws [default: 0].
    #[arg(long, value_name = "N", conflicts_with = "config")]
    seed: Option<u64>,

    /// Responses computed at once; whenever one ends the next begins [default: 32].
    #[arg(long, value_name = "N", conflicts_with = "config")]
    batch_size: Option<usize>,
}

const HELP: &str = "\
A line per response, the responses to a prompt one after the other:
  {\"prompt\":\"...\",\"response\":\"...\",\"token_ids\":[...],\"log_prob\":-43.69,
   \"finish_reason\":\"stop\",\"index\":0,\"seed\":0,\"draw\":\"...\"}
log_prob is the model's own, in nats, whatever it was drawn with. finish_reason is stop where the
response ended by itself (its last id is then an end token), stop_text where it met a text of --stop
(the response ends before that text; token_ids has all that was drawn), length where it met a limit.
With --reference a line has reference_log_prob, too. A prompt that several rows have is answered once.

A draw depends on the seed, the prompt, the number of the response and the position alone. So a file
that was interrupted is gone on with by the same command, and --batch-size matters for speed and
memory only (on a GPU, rounding aside). A file of another model, other prompts or other settings is refused: `draw` tells.

Such a file is what data.samples names in the config of a training run. With data.samples = \"auto\"
the run draws its samples itself, by its [sample] section.

A config:
  [model]
  model_name_or_path = \"runs/sft\"
  [data]
  format = \"hh\"
  train = \"train.jsonl.gz\"         # also eval and unlabelled, if there
  max_prompt_length = 256          # longer prompts are cut, as in training
  [sample]
  temperature = 1.0
  top_k = 60                       # 0: off
  top_p = 0.8                      # 1: off
  min_p = 0.0                      # 0: off
  repetition_penalty = 1.1         # 1: off
  stop = []                        # e.g. [\"\\n\\nHuman:\"]
  max_new_tokens = 256
  num_samples = 1
  seed = 0
  batch_size = 32
  greedy = false

Processors are those of transformers, in its order: repetition penalty, temperature, top-k, top-p,
min-p.

--alpaca-eval writes [{\"instruction\":\"...\",\"output\":\"...\",\"generator\":\"NAME\"},...]; the rows of
--prompts may be AlpacaEval's own, with a column instruction.

Examples:
  $ expo sample --config configs/sample_hh.toml --out samples.jsonl
  $ expo sample --model Qwen/Qwen2-0.5B-Instruct --chat --prompt \"Why is the sky blue?\"
  $ expo sample --model runs/sft --prompts test.jsonl --num-samples 25 --top-p 0.95 --out s.jsonl
  $ expo sample --model runs/sft --prompt \"Once upon a time\" --greedy --max-new-tokens 100
  $ expo sample --model runs/dpo --prompts alpaca_eval.json --chat --temperature 0.9 --out dpo.jsonl
      --alpaca-eval outputs.json --generator dpo

Exit code: 0 done or out of time, 1 failed, 2 wrong input, 3 a log-prob that is not finite, 130 or 143
ended by INT or TERM; what was being drawn is then drawn anew by the same command.";

/// Runs the command.
pub fn run(args: &SampleArgs) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    if let Some(path) = &args.config {
        let config = SamplingConfig::open(path, &args.set)?;
        if args.print_config {
            answer(&config.to_toml()?)?;
            return Ok(());
        }
        return finish(args, &mut progress, |target, progress| {
            sample_run(&config, target, &mut |event| progress.show(event))
        });
    }
    if let Some(prompt) = &args.prompt {
        return stream(args, prompt, &mut progress);
    }
    let config = configure(args)?;
    finish(args, &mut progress, |target, progress| {
        sample_run(&config, target, &mut |event| progress.show(event))
    })
}

/// The model that the flags name.
fn model(args: &SampleArgs) -> ModelConfig {
    let mut model = ModelConfig::new(args.model.as_deref().unwrap_or_default());
    model.revision.clone_from(&args.revision);
    model.dtype = args.dtype.unwrap_or_default();
    if let Some(device) = &args.device {
        model.device.clone_from(device);
    }
    model
}

/// The config that the flags stand for.
fn configure(args: &SampleArgs) -> Result<SamplingConfig> {
    let Some(files) = &args.prompts else {
        return Err(Error::input("neither --prompts nor --prompt")
            .hint("name a file of prompts, or give one"));
    };
    let format = match args.format {
        Some(format) => format,
        None => {
            let format = Format::of_file(files)?;
            let hint = format.columns_hint();
            let _ = writeln!(std::io::stderr().lock(), "{files}: {hint}");
            format
        }
    };
    let mut prompts = PromptSource::new(format, files.clone());
    if args.max_prompt_length == Some(0) {
        return Err(Error::input("--max-prompt-length is 0").hint("it is at least 1"));
    }
    prompts.rows.max_prompt_length = args.max_prompt_length;
    prompts.rows.tokens.apply_chat_template = args.chat;
    let sample = args.settings.sample();
    sample.validate()?;
    Ok(SamplingConfig {
        model: model(args),
        prompts,
        sample,
    })
}

impl Settings {
    fn sample(&self) -> SampleConfig {
        let default = SampleConfig::default();
        SampleConfig {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            stop: self.stop.clone(),
            repetition_penalty: self
                .repetition_penalty
                .unwrap_or(default.repetition_penalty),
            greedy: self.greedy,
            max_new_tokens: self.max_new_tokens.unwrap_or(default.max_new_tokens),
            num_samples: self.num_samples.unwrap_or(default.num_samples),
            batch_size: self.batch_size.unwrap_or(default.batch_size),
            seed: self.seed.unwrap_or(default.seed),
        }
    }
}

fn finish(
    args: &SampleArgs,
    progress: &mut Progress,
    draw: impl FnOnce(&Target, &mut Progress) -> Result<Written>,
) -> anyhow::Result<()> {
    let Some(out) = &args.out else {
        return Err(Error::input("no --out")
            .hint("name the file of the responses")
            .into());
    };
    expo::io::durable::check_writable(out)?;
    let until = StopCondition {
        signal: on_signal()?,
        ..limited(args.max_time)
    };
    if let Some(path) = &args.alpaca_eval {
        expo::io::durable::check_writable(path)?;
        // Beside responses that are gone on with it is this program's, and made anew.
        if path.exists() && !args.overwrite && !out.exists() {
            let error = Error::input("is there already").at(path.display());
            return Err(error.hint("name another, or remove it").into());
        }
    }
    let target = Target {
        out,
        existing: match (args.overwrite, args.resume) {
            (true, _) => Existing::Replace,
            (false, Resume::Auto) => Existing::Continue,
            (false, Resume::Never) => Existing::Refuse,
        },
        reference: args
            .reference
            .as_deref()
            .map(|name| (name, args.reference_revision.as_deref())),
        alpaca_eval: args.alpaca_eval.as_deref().zip(args.generator.as_deref()),
        until: &until,
    };
    let outcome = draw(&target, progress);
    progress.close();
    let written = outcome?;
    if let (true, Some(reason)) = (written.responses < written.total, until.reached()) {
        let (responses, total) = (grouped(written.responses), grouped(written.total));
        let path = out.display();
        let how = match (args.overwrite, args.resume) {
            (true, _) => "the same command without --overwrite goes on",
            (_, Resume::Never) => "go on with --resume auto",
            (_, Resume::Auto) => "the same command goes on",
        };
        let what = format!("{responses} of {total} responses are in {path}; {how}");
        return ended(reason, &what);
    }
    let bound = args.profile.then(read_rate);
    answer(&match args.json {
        true => object(&written, bound, out),
        false => table(&written, bound, out),
    })?;
    Ok(())
}

/// Writes the response to one prompt to standard output while it is drawn; several would mix, so
/// they come at the end, each with its log-prob.
fn stream(args: &SampleArgs, prompt: &str, progress: &mut Progress) -> anyhow::Result<()> {
    let sample = args.settings.sample();
    sample.validate()?;
    let several = sample.num_samples > 1;
    let asked = TextPrompt {
        model: &model(args),
        tokens: TokenizeConfig {
            apply_chat_template: args.chat,
            ..TokenizeConfig::default()
        },
        sample: &sample,
        text: prompt,
        place: "--prompt",
    };
    let mut failed = Ok(());
    let mut out = std::io::stdout().lock();
    let drawn = sample_text(&asked, &mut |event| progress.show(event), |piece| {
        if failed.is_ok() {
            failed = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        }
    });
    progress.close();
    let drawn = drawn?;
    failed?;
    if several {
        for (number, (drawn, text)) in drawn.iter().enumerate() {
            writeln!(out, "[{number}] log-prob {:.2}\n{text}", drawn.log_prob)?;
        }
    } else {
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

fn object(written: &Written, bound: Option<f64>, out: &Path) -> String {
    let mut object = json!({
        "responses": written.responses,
        "found": written.found,
        "tokens": written.tokens,
        "finished": written.finished,
        "seconds": written.seconds,
        "peak_memory_bytes": peak(),
        "out": out,
    });
    if let (Some(bound), true) = (bound, written.bytes > 0) {
        object["bytes"] = written.bytes.into();
        object["read_bytes_per_second"] = bound.into();
    }
    format!("{object}\n")
}

fn table(written: &Written, bound: Option<f64>, out: &Path) -> String {
    let mut text = String::new();
    for (name, count) in [
        ("responses", written.responses),
        ("found there", written.found),
        ("drawn now", written.responses - written.found),
        ("  that ended", written.finished),
        ("  tokens", written.tokens),
    ] {
        let _ = writeln!(text, "{name:<14}{:>14}", grouped(count));
    }
    if written.tokens > 0 {
        let rate = written.tokens as f64 / written.seconds;
        let _ = writeln!(text, "{:<14}{rate:>14.1}", "tokens/s");
    }
    if let (Some(bound), true) = (bound, written.bytes > 0) {
        let rate = written.bytes as f64 / written.seconds;
        let _ = writeln!(
            text,
            "weights, keys and values were read at {:.1} GB/s, {:.0}% of a plain read's {:.1} GB/s",
            rate / 1e9,
            100.0 * rate / bound,
            bound / 1e9,
        );
    }
    let _ = writeln!(text, "output {}", out.display());
    text
}
