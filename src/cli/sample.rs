//! `expo sample`: responses drawn from a model, into a file or onto the terminal.

mod help;
mod stream;
mod summary;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use expo::config::{ModelConfig, PromptSource, SamplingConfig, Source};
use expo::error::{Error, Result};
use expo::io::output::Output;
use expo::kernels::rates::read_rate;
use expo::model::sampling::SampleConfig;
use expo::sample::{self, Target, Written, is_alpaca_eval, sample_run};
use expo::session::StopCondition;

use super::args::{ComputeArgs, PromptArgs};
use super::dispatch::DeviceRequest;
use super::error::{flagged, located};
use super::out::{Existing, answer_beside, open, paths};
use super::progress::Progress;
use super::stop::{Limit, ended, limited, on_signal};
use super::{answer, grouped};

/// Draw responses from a model
#[derive(Args)]
#[command(after_long_help = help::HELP)]
pub struct SampleArgs {
    /// Read this config, a TOML file; --config FILE is the same
    #[arg(
        value_name = "FILE",
        group = "configured",
        conflicts_with_all = ["Settings", "ComputeArgs"]
    )]
    file: Option<PathBuf>,

    /// Read a config with [model], [data] and [sample], or a training run's with
    /// data.samples = "auto"
    #[arg(
        long,
        value_name = "FILE",
        group = "configured",
        conflicts_with_all = ["Settings", "ComputeArgs"]
    )]
    config: Option<PathBuf>,

    /// Set a key of the config; may be repeated, the last value wins
    #[arg(long, value_name = "SECTION.KEY=VALUE", requires = "configured")]
    set: Vec<String>,

    /// Print the config with all defaults, itself a valid config, and exit
    #[arg(long, requires = "configured")]
    print_config: bool,

    /// Draw from this model: a directory, or owner/name on the hub
    #[arg(long, value_name = "MODEL", conflicts_with = "configured")]
    model: Option<String>,

    #[command(flatten)]
    prompts: PromptArgs,

    /// Answer one prompt, onto the terminal while it is drawn
    #[arg(
        long,
        value_name = "TEXT",
        requires = "model",
        conflicts_with = "prompts"
    )]
    prompt: Option<String>,

    #[command(flatten)]
    compute: ComputeArgs,

    #[command(flatten)]
    settings: Settings,

    /// Write the responses to this file, - for standard output; resume an interrupted file
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    out: Option<PathBuf>,

    /// Score each response under this second model, too
    #[arg(long, value_name = "MODEL", requires = "out")]
    reference: Option<String>,

    /// Take this branch, tag or commit of --reference on the hub
    #[arg(long, value_name = "NAME", requires = "reference")]
    reference_revision: Option<String>,

    /// Write the first response to each prompt to this file in AlpacaEval's form, once all are drawn
    #[arg(long, value_name = "FILE", requires_all = ["out", "generator"])]
    alpaca_eval: Option<PathBuf>,

    /// Name the model in --alpaca-eval
    #[arg(long, value_name = "NAME", requires = "alpaca_eval")]
    generator: Option<String>,

    /// Resume a file --out that exists, after checking it (auto), or refuse it (never)
    #[arg(
        long,
        requires = "out",
        value_name = "auto|never",
        default_value = "auto"
    )]
    resume: Resume,

    /// Replace the file --out; a link, a pipe, a device or a file that is read never is
    #[arg(long, requires = "out", conflicts_with = "resume")]
    overwrite: bool,

    /// Stop after this much wall-clock time, e.g. 3h30m, with exit code 0; the same command resumes
    #[arg(long, value_name = "TIME", requires = "out")]
    max_time: Option<Limit>,

    /// Print the bytes that decoding steps read per second beside the memory bandwidth of this machine
    #[arg(long, requires = "out")]
    profile: bool,

    /// Print the summary as one JSON object
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
    /// Divide the logits by this
    #[arg(long, value_name = "X", default_value_t = SampleConfig::default().temperature)]
    temperature: f64,

    /// Sample from the K most likely tokens; 0: from all
    #[arg(long, value_name = "K", default_value_t = SampleConfig::default().top_k)]
    top_k: usize,

    /// Sample from the smallest set of most likely tokens with this mass
    #[arg(long, value_name = "X", default_value_t = SampleConfig::default().top_p)]
    top_p: f64,

    /// Drop tokens less likely than X times the most likely one
    #[arg(long, value_name = "X", default_value_t = SampleConfig::default().min_p)]
    min_p: f64,

    /// Penalize tokens that already occur in the prompt or response; 1: off
    #[arg(long, value_name = "X", default_value_t = SampleConfig::default().repetition_penalty)]
    repetition_penalty: f64,

    /// Take the most likely token each time
    #[arg(long)]
    greedy: bool,

    /// End a response before this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Draw at most this many tokens per response
    #[arg(long, value_name = "N", default_value_t = SampleConfig::default().max_new_tokens)]
    max_new_tokens: usize,

    /// Draw this many responses per prompt
    #[arg(long, value_name = "N", default_value_t = SampleConfig::default().num_samples)]
    num_samples: usize,

    /// Seed the draws
    #[arg(long, value_name = "N", default_value_t = SampleConfig::default().seed)]
    seed: u64,

    /// Draw this many responses at once; whenever one ends the next begins
    #[arg(long, value_name = "N", default_value_t = SampleConfig::default().batch_size)]
    batch_size: usize,
}

impl SampleArgs {
    /// The device that drawing asks for.
    pub fn device(&self) -> Option<DeviceRequest> {
        match self.path() {
            _ if self.print_config => None,
            Some(path) => DeviceRequest::by_config(path, &self.set),
            None => Some(DeviceRequest::by_flag(&self.compute)),
        }
    }

    /// The config, if one is named.
    fn path(&self) -> Option<&Path> {
        self.config.as_deref().or(self.file.as_deref())
    }

    /// Refuses a command that says too little.
    fn check(&self) -> Result<()> {
        let missing = |what: &str, hint: &str| Err(Error::input(what).hint(hint));
        let is_answered = self.prompt.is_some() || self.out.is_some() || self.print_config;
        match (self.path(), &self.model) {
            (Some(path), _) if self.config.is_none() && path.is_dir() => {
                let hint =
                    "--model names a model, with --prompt TEXT, or --prompts FILE and --out FILE";
                missing("is a directory, not a config", hint)
                    .map_err(|error| error.at(path.display()))
            }
            (Some(_), _) if !is_answered => missing("no --out", "--out FILE takes the responses"),
            (Some(_), _) => Ok(()),
            (None, None) => missing(
                "neither a model nor a config",
                "--model MODEL with --prompt TEXT, or with --prompts FILE and --out FILE; or --config FILE \
                 and --out FILE",
            ),
            (None, Some(_)) if self.prompt.is_none() && self.prompts.prompts.is_none() => missing(
                "neither --prompts nor --prompt",
                "--prompt TEXT, or --prompts FILE and --out FILE",
            ),
            (None, Some(_)) if !is_answered => {
                missing("--prompts without --out", "--out FILE takes the responses")
            }
            (None, Some(_)) => Ok(()),
        }
    }
}

/// Runs the command.
pub fn run(args: &SampleArgs) -> anyhow::Result<()> {
    args.check()?;
    let mut progress = Progress::new();
    if let Some(path) = args.path() {
        let source = Source::open(path, &args.set)?;
        let config = SamplingConfig::of(&source)?;
        if args.print_config {
            answer(&config.to_toml()?)?;
            return Ok(());
        }
        let mut inputs = inputs_of(&config.prompts);
        inputs.push(path.to_owned());
        let drawn = finish(args, &inputs, &mut progress, |target, progress| {
            sample_run(&config, target, &mut |event| progress.show(event))
        });
        return located(&source, drawn);
    }
    if let Some(prompt) = &args.prompt {
        return stream::stream(args, prompt, &mut progress);
    }
    let config = flagged(configure(args))?;
    let inputs = inputs_of(&config.prompts);
    finish(args, &inputs, &mut progress, |target, progress| {
        flagged(sample_run(&config, target, &mut |event| {
            progress.show(event)
        }))
    })
}

/// The model that the flags name.
fn model(args: &SampleArgs) -> ModelConfig {
    args.compute
        .model(args.model.as_deref().unwrap_or_default())
}

/// The files that prompts are read from.
fn inputs_of(prompts: &PromptSource) -> Vec<PathBuf> {
    let files = [&prompts.train].into_iter().chain(&prompts.eval);
    paths(files.chain(&prompts.unlabelled)).collect()
}

/// The config that the flags stand for.
fn configure(args: &SampleArgs) -> Result<SamplingConfig> {
    let Some(prompts) = args.prompts.source()? else {
        return Err(Error::input("neither --prompts nor --prompt"));
    };
    let sample = args.settings.sample();
    sample.validate()?;
    Ok(SamplingConfig {
        model: model(args),
        adapter: None,
        prompts,
        sample,
    })
}

impl Settings {
    fn sample(&self) -> SampleConfig {
        SampleConfig {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            stop: self.stop.clone(),
            repetition_penalty: self.repetition_penalty,
            greedy: self.greedy,
            max_new_tokens: self.max_new_tokens,
            num_samples: self.num_samples,
            batch_size: self.batch_size,
            seed: self.seed,
        }
    }
}

fn finish(
    args: &SampleArgs,
    inputs: &[PathBuf],
    progress: &mut Progress,
    draw: impl FnOnce(&Target, &mut Progress) -> Result<Written>,
) -> anyhow::Result<()> {
    let Some(out) = &args.out else {
        return Err(Error::input("no --out").into());
    };
    let output = open(out, Existing::Take, inputs.iter().cloned())?;
    let until = StopCondition {
        signal: on_signal()?,
        ..limited(args.max_time)
    };
    let alpaca_eval = match &args.alpaca_eval {
        None => None,
        Some(path) => Some(alpaca_eval(args, path, &output, inputs)?),
    };
    let target = Target {
        out: &output,
        existing: match (args.overwrite, args.resume) {
            (true, _) => sample::Existing::Replace,
            (false, Resume::Auto) => sample::Existing::Continue,
            (false, Resume::Never) => sample::Existing::Refuse,
        },
        reference: args
            .reference
            .as_deref()
            .map(|name| (name, args.reference_revision.as_deref())),
        alpaca_eval: alpaca_eval.as_ref().zip(args.generator.as_deref()),
        until: &until,
    };
    let outcome = draw(&target, progress);
    progress.close();
    let written = outcome?;
    if let (true, Some(reason)) = (written.responses < written.total, until.reached()) {
        let (responses, total) = (grouped(written.responses), grouped(written.total));
        let path = out.display();
        let how = match (args.overwrite, args.resume) {
            _ if matches!(output, Output::Stream(..)) => "the rest is lost",
            (true, _) => "run the same command without --overwrite to resume",
            (_, Resume::Never) => "resume with --resume auto",
            (_, Resume::Auto) => "run the same command to resume",
        };
        let at = format!("after {responses} of {total} responses");
        return ended(reason, &at, &format!("saved in {path}; {how}"));
    }
    let bound = args.profile.then(read_rate);
    let text = match args.json {
        true => summary::object(&written, bound, out),
        false => summary::table(&written, bound, out),
    };
    answer_beside(out, &text)
}

/// Where AlpacaEval's form of the responses in `out` goes.
fn alpaca_eval(args: &SampleArgs, path: &Path, out: &Output, inputs: &[PathBuf]) -> Result<Output> {
    let Output::File(responses) = out else {
        return Err(Error::input("is made of a file --out, not of a stream").at("--alpaca-eval"));
    };
    if path == responses {
        return Err(Error::input("is --out, too")
            .hint("name another")
            .at(path.display()));
    }
    // Beside responses that are gone on with a list of this generator is this program's, and made anew.
    let generator = args.generator.as_deref().unwrap_or_default();
    let is_own = |path: &Path| is_alpaca_eval(path, generator);
    let existing = match (args.overwrite, responses.exists()) {
        (true, _) => Existing::Take,
        (false, true) => Existing::Own(&is_own),
        (false, false) => Existing::Refuse,
    };
    let inputs = inputs.iter().chain([responses]);
    open(path, existing, inputs.cloned())
}
