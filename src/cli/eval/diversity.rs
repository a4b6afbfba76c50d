//! `expo eval diversity`: how much variety there is in samples.

mod lines;
mod table;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use expo::config::{ModelConfig, PromptSource, SamplingConfig};
use expo::data::Files;
use expo::error::{Error, Result};
use expo::eval::diversity::{Diversity, Report, SampleSet, Unit, align, check, entropies};
use expo::eval::figure::Draws;
use expo::io::output::Output;
use expo::model::head::ResponseScore;
use expo::model::sampling::SampleConfig;
use expo::report::significant;
use expo::sample::{Existing, Target, sample_run};
use expo::session::{Event, StopCondition};

use crate::cli::args::{BatchArgs, ComputeArgs, PromptArgs};
use crate::cli::dispatch::DeviceRequest;
use crate::cli::error::{flagged, flagged_as};
use crate::cli::out::{self, answer_beside, directory, file, paths};
use crate::cli::progress::Progress;
use crate::cli::stop::{ended, on_signal};
use crate::cli::{answer, grouped, tell};

/// Evaluate the diversity of samples, of several models side by side.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct DiversityArgs {
    /// Evaluate these files of `expo sample`, one per model
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        value_parser = str::parse::<Files>,
        required_unless_present = "model",
        conflicts_with_all = ["model", "prompts", "out_dir"]
    )]
    samples: Vec<Files>,

    /// Draw from these models: directories, or owner/name on the hub
    #[arg(long, value_name = "MODEL", num_args = 1.., requires = "prompts", requires = "out_dir")]
    model: Vec<String>,

    /// Call the files or models so, in their order; by default by their own names
    #[arg(long, value_name = "NAME", num_args = 1..)]
    name: Vec<String>,

    #[command(flatten)]
    prompts: PromptArgs,

    /// With --model: write the samples to this directory, NAME.jsonl each; resume interrupted files
    #[arg(long, value_name = "DIR", requires = "model")]
    out_dir: Option<PathBuf>,

    /// With --model: draw this many responses per prompt
    #[arg(
        long,
        value_name = "N",
        default_value_t = 25,
        conflicts_with = "samples"
    )]
    num_samples: usize,

    /// With --model: sample from the smallest set of most likely tokens with this mass
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.95,
        conflicts_with = "samples"
    )]
    top_p: f64,

    /// With --model: divide the logits by this
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        conflicts_with = "samples"
    )]
    temperature: f64,

    /// With --model: draw at most this many tokens per response
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        conflicts_with = "samples"
    )]
    max_new_tokens: usize,

    /// With --model: seed the draws
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        conflicts_with = "samples"
    )]
    seed: u64,

    /// With --model: draw this many responses at once
    #[arg(long, value_name = "N", default_value_t = SampleConfig::default().batch_size, conflicts_with = "samples")]
    batch_size: usize,

    /// With --samples: score the responses under these models, one per file or one for all, for the
    /// entropy of the whole softmax
    #[arg(long, value_name = "MODEL", num_args = 1.., requires = "samples")]
    score_with: Vec<String>,

    /// Compute self-BLEU and distinct-n over these units
    #[arg(long, value_name = "UNIT", default_value = "words")]
    tokens: Tokens,

    /// Compare what all files have: their common prompts, and of each the first samples
    #[arg(long)]
    common: bool,

    /// Resample the prompts this many times for the intervals
    #[arg(long, value_name = "N", default_value_t = Draws::default().count)]
    bootstrap: usize,

    #[command(flatten)]
    batch: BatchArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Write a line per model and prompt to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Replace the file --out; a link, a pipe, a device or a file that is read never is
    #[arg(long, requires = "out")]
    overwrite: bool,

    /// Print one JSON object with a list of models: entropies, self-BLEU, distinct-n, intervals
    #[arg(long)]
    json: bool,
}

/// What n-grams are of.
#[derive(Clone, Copy, ValueEnum)]
enum Tokens {
    /// What lies between white space.
    Words,
    /// Token ids without the end token.
    Ids,
}

const HELP: &str = "\
The protocol of EXPO table 1: 25 samples per prompt, nucleus 0.95, temperature
1.

The report, of each model a mean over prompts:
  entropy, Monte-Carlo     mean over responses of -log pi(y|x) / |y|, in nats
                           per token. log pi is that of the file, the drawing
                           model's own before any logits processor, and |y|
                           counts the end token. Drawn with a nucleus, responses
                           are likelier than the model's own, so it tends to lie
                           below the entropy.
    by tokens              the sum of -log pi(y|x) over the sum of |y|
  entropy, full softmax    mean over responses of the mean over their tokens of
                           the entropy of the next-token distribution, of the
                           whole softmax at temperature 1, in nats; of the model
                           that scores them (--model, --score-with)
    by tokens              the mean over all tokens
  self-BLEU-4              mean over samples of BLEU of each against the others
                           of its prompt, in [0, 1], less is more variety. As
                           sentence_bleu of NLTK 3.10 with equal weights and
                           method1: a precision without a match is 0.1 over the
                           number of n-grams, without a common word BLEU is 0
  distinct-1, distinct-2   different n-grams over n-grams, of the samples of a
                           prompt; none reaches from one sample into the next. A
                           prompt without n-grams does not count
    of all prompts         the same of all samples together; no interval
  tokens, words            mean lengths, tokens with the end token
  stopped                  the share of responses that ended by themselves or at
                           a stop text
Words are what lies between white space (Unicode's White_Space), as written.
Models with different tokenizers differ in nats per token by that alone.
Intervals are of 95%, by the percentile bootstrap over prompts, drawn with seed
0.

A line of --out has the metrics of one model on one prompt, for paired
comparisons:
  {\"model\":\"dpo\",\"prompt\":\"...\",\"entropy_monte_carlo\":1.52,
   \"entropy_softmax\":1.61,\"self_bleu_4\":0.12,\"distinct_1\":0.44,
   \"distinct_2\":0.83,\"tokens\":61.2,\"words\":48.0,\"stopped\":0.96}

Files must have the same prompts with the same number of samples each, two at
least, or --common compares what they have in common. A file has what `expo
sample` writes; prompt, response and finish_reason must be there, token_ids and
log_prob for entropy.

Examples:
  $ expo eval diversity --model runs/sft runs/dpo --prompts test.jsonl \\
      --out-dir samples
  $ expo eval diversity --samples samples/sft.jsonl samples/dpo.jsonl \\
      --name SFT DPO
  $ expo eval diversity --samples dpo.jsonl --score-with runs/dpo --json

INT or TERM ends the draws once their batch is written; the same command
resumes. A file --out is written when everything is known, whole or not at all.";

impl DiversityArgs {
    /// The device that drawing or scoring asks for; `None` where only samples are read.
    pub fn device(&self) -> Option<DeviceRequest> {
        let computes = !(self.model.is_empty() && self.score_with.is_empty());
        computes.then(|| DeviceRequest::by_flag(&self.compute))
    }
}

/// Runs the command.
pub fn run(args: &DiversityArgs) -> anyhow::Result<()> {
    let draws = Draws {
        count: args.bootstrap,
        ..Draws::default()
    };
    check(draws)?;
    let names = names(args)?;
    let lines = lines::output(args, &names)?;
    let source = flagged(args.prompts.source())?;
    if source.is_some() {
        flagged(check_samples(args))?;
    }
    let mut files = args.samples.clone();
    let mut progress = Progress::new();
    if let (Some(source), Some(folder)) = (&source, &args.out_dir) {
        let until = StopCondition {
            signal: on_signal()?,
            ..StopCondition::default()
        };
        directory(folder)?;
        for (model, name) in args.model.iter().zip(&names) {
            let out = lines::samples_of(folder, name);
            file(&out, out::Existing::Take, paths(&args.prompts.prompts))?;
            let drawn = draw(args, model, source, &out, &until, &mut progress);
            progress.close();
            let (written, total) = flagged(drawn)?;
            if let (true, Some(reason)) = (written < total, until.reached()) {
                let (written, total) = (grouped(written), grouped(total));
                let at = format!("after {written} of {total} responses");
                let saved = format!("saved in {}", out.display());
                return ended(
                    reason,
                    &at,
                    &format!("{saved}; run the same command to resume"),
                );
            }
            files.push(out.into());
        }
    }
    let mut sets = Vec::new();
    for (file, name) in files.iter().zip(&names) {
        sets.push(SampleSet::open(name, file)?);
    }
    let samples_per_prompt = align(&mut sets, args.common)?;
    let unit = match args.tokens {
        Tokens::Words => Unit::Words,
        Tokens::Ids => Unit::Ids,
    };
    let scorers = match args.model.is_empty() {
        true => &args.score_with,
        false => &args.model,
    };
    let mut models = Vec::new();
    for (number, set) in sets.iter().enumerate() {
        let scorer = scorers.get(number).or(scorers.first());
        let scored = match scorer {
            None => None,
            Some(model) => {
                let model = args.compute.model(model);
                let ids = set.ids()?;
                let scored = entropies(
                    &model,
                    source.as_ref(),
                    &ids,
                    args.batch.micro_batch_tokens,
                    &mut |event| progress.show(event),
                );
                progress.close();
                let flag = if args.model.is_empty() {
                    "score_with"
                } else {
                    "model"
                };
                let scored = flagged_as(flag, scored)?;
                remark(set, &model, &scored);
                Some(scored)
            }
        };
        models.push(Diversity::new(set, scored.as_deref(), unit, draws)?);
    }
    let report = Report {
        prompts: sets[0].prompts.len(),
        samples_per_prompt,
        unit,
        bootstrap: draws,
        models,
    };
    if let Some(out) = &lines {
        lines::write(out, &report.models)?;
    }
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string(&report)?),
        false => table::text(&report)?,
    };
    match &args.out {
        Some(out) => answer_beside(out, &text),
        None => answer(&text),
    }
}

/// What each set is called, different for each.
fn names(args: &DiversityArgs) -> Result<Vec<String>> {
    let own: Vec<String> = match args.model.is_empty() {
        true => args.samples.iter().map(of_file).collect(),
        false => args.model.iter().map(|model| of_model(model)).collect(),
    };
    if !matches!(args.score_with.len(), 0 | 1) && args.score_with.len() != own.len() {
        let (models, files) = (args.score_with.len(), own.len());
        let what = format!("{models} models to score {files} files");
        return Err(Error::input(what)
            .hint("one for all, or one for each")
            .at("--score-with"));
    }
    let names = match args.name.is_empty() {
        true => own,
        false if args.name.len() == own.len() => args.name.clone(),
        false => {
            let (names, sets) = (args.name.len(), own.len());
            let what = format!("{names} names for {sets} sets of samples");
            return Err(Error::input(what).hint("one for each").at("--name"));
        }
    };
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            let what = format!("two sets of samples are called {name:?}");
            return Err(Error::input(what).hint("give each a name with --name"));
        }
        if !args.model.is_empty() && (name.is_empty() || name.contains(['/', '\\'])) {
            let what = format!("{name:?} is no name of a file");
            return Err(Error::input(what)
                .hint("a word, for NAME.jsonl")
                .at("--name"));
        }
    }
    Ok(names)
}

fn of_file(files: &Files) -> String {
    let stem = files.names().next().and_then(Path::file_name);
    let name = stem.map_or_else(|| files.to_string(), |s| s.to_string_lossy().into_owned());
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.strip_suffix(".jsonl").unwrap_or(name).to_owned()
}

fn of_model(model: &str) -> String {
    let name = Path::new(model).file_name();
    name.map_or_else(
        || "model".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Refuses settings of the draws that make no comparison.
fn check_samples(args: &DiversityArgs) -> Result<()> {
    if args.num_samples < 2 {
        return Err(Error::must_be("num_samples", ">= 2", args.num_samples)
            .hint("self-BLEU compares samples; the papers draw 25"));
    }
    sample_config(args).validate()
}

fn sample_config(args: &DiversityArgs) -> SampleConfig {
    SampleConfig {
        temperature: args.temperature,
        top_p: args.top_p,
        max_new_tokens: args.max_new_tokens,
        num_samples: args.num_samples,
        batch_size: args.batch_size,
        seed: args.seed,
        ..SampleConfig::default()
    }
}

/// Draws the samples of a model, and says how many there are and are to be.
fn draw(
    args: &DiversityArgs,
    model: &str,
    prompts: &PromptSource,
    out: &Path,
    until: &StopCondition,
    progress: &mut Progress,
) -> Result<(usize, usize)> {
    let config = SamplingConfig {
        model: args.compute.model(model),
        adapter: None,
        prompts: prompts.clone(),
        sample: sample_config(args),
    };
    let mut observe = |event: Event| progress.show(event);
    let target = Target {
        out: &Output::File(out.to_owned()),
        existing: Existing::Continue,
        reference: None,
        alpaca_eval: None,
        until,
    };
    let written = sample_run(&config, &target, &mut observe)?;
    Ok((written.responses, written.total))
}

/// Says so where the model that scores cannot be the one that drew.
fn remark(set: &SampleSet, model: &ModelConfig, scored: &[Vec<ResponseScore>]) {
    let drawn = set.prompts.iter().flat_map(|(_, samples)| samples);
    let off = drawn
        .zip(scored.iter().flatten())
        .filter_map(|(drawn, score)| {
            let off = (drawn.log_prob? - score.log_prob).abs();
            Some(off / score.tokens as f64)
        });
    let off = off.fold(0.0, f64::max);
    if off > 0.02 {
        let (name, model) = (&set.name, &model.model_name_or_path);
        let off = significant(off);
        tell(format!(
            "{name}: log-probs differ from those of {model} by up to {off} per token: another \
             model or dtype drew them, or their prompts were cut"
        ));
    }
}
