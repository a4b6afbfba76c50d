//! `expo eval pairs`: a model, and a reference, on a preference set.

mod tables;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use expo::data::{Files, Scores};
use expo::error::{Error, Result};
use expo::eval::figure::Draws;
use expo::eval::pairs::{
    Asked, Available, Line, PairRows, Pairs, Report, Settings, evaluate, needs, score_pairs,
};
use expo::io::durable::json_line;
use expo::io::output::Output;
use serde_json::Value;

use crate::cli::answer;
use crate::cli::args::{BatchArgs, ComputeArgs, RowArgs};
use crate::cli::dispatch::DeviceRequest;
use crate::cli::error::flagged;
use crate::cli::out::{Existing, answer_beside, open, paths};
use crate::cli::progress::Progress;

/// Evaluate a model, and a reference, on a preference set.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct PairsArgs {
    /// Evaluate this model: a directory, or owner/name on the hub
    #[arg(long, value_name = "MODEL")]
    model: String,

    /// Compare with this reference: a directory, or owner/name on the hub. Its log-probs are cached
    #[arg(long, value_name = "MODEL")]
    reference: Option<String>,

    /// Take this branch, tag or commit of the reference on the hub
    #[arg(long, value_name = "NAME", requires = "reference")]
    reference_revision: Option<String>,

    /// Read the reference's log-probs of these rows from a file of `expo score`
    #[arg(long, value_name = "FILE", conflicts_with = "reference")]
    reference_log_probs: Option<PathBuf>,

    /// Evaluate on these rows, .jsonl, .parquet, .csv and others; rows.jsonl[:100] takes the first 100
    #[arg(long, value_name = "FILE", value_parser = str::parse::<Files>)]
    data: Files,

    /// Use score_chosen and score_rejected as the config key data.scores says
    #[arg(long, value_name = "USE", default_value = "ignore")]
    scores: UseOfScores,

    /// Read responses drawn from the reference, for the losses that use them
    #[arg(long, value_name = "FILE", value_parser = str::parse::<Files>)]
    samples: Option<Files>,

    /// Report this loss, with knobs or without: dpo, dpo:beta=0.05,label_smoothing=0.1; may be
    /// repeated; by default every loss that has a value here
    #[arg(long, value_name = "NAME[:KEY=X,...]")]
    loss: Vec<Asked>,

    /// Predict with sigma(beta h)
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.1,
        allow_negative_numbers = true
    )]
    beta: f64,

    /// Split the rows into this many parts by n_w - n_l, at its quantiles
    #[arg(long, value_name = "N", default_value_t = 5)]
    length_buckets: usize,

    /// Resample the rows this many times for the intervals
    #[arg(long, value_name = "N", default_value_t = Draws::default().count)]
    bootstrap: usize,

    #[command(flatten)]
    rows: RowArgs,

    #[command(flatten)]
    batch: BatchArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Write a line per row to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Replace the file --out; a link, a pipe, a device or a file that is read never is
    #[arg(long, requires = "out")]
    overwrite: bool,

    /// Print one JSON object: losses, margins, calibration, length, each with its interval
    #[arg(long)]
    json: bool,
}

/// What scores are for.
#[derive(Clone, Copy, ValueEnum)]
enum UseOfScores {
    /// They are not read.
    Ignore,
    /// Rows whose chosen answer has not the higher one are left out.
    Check,
    /// The label is sigma(score_chosen - score_rejected).
    #[value(name = "bradley_terry")]
    BradleyTerry,
}

const HELP: &str = "\
Symbols: w the chosen and l the rejected response, pi the model, r the
reference, n tokens; rho = log pi(y|x) - log r(y|x), h = rho_w - rho_l, d = log
pi(y_w|x) - log pi(y_l|x). Log-probs are sums over the response's tokens in
nats, its end token included.

The report:
  losses        the mean over rows of every loss, with its paper's knobs, that
                has a value here; the others are named with the reason. What a
                loss reads of a batch (AOT's order, z0 of KTO) is of the whole
                set. KTO needs another pass over answers to other prompts, ODPO
                scores in every row: both are there if asked for with --loss.
  d             margins of the model by itself. With a reference also
  h             margins of rewards, which are rho: beta is no part of them
    accuracy    the share of rows with a margin > 0, strictly; of a soft label p
                the expected share, p of rows above 0 and 1 - p of rows below
    per token   the same with log pi / n, or rho / n, of each response
    chosen, rejected  means of log pi, or rho, of each side: where rho of the
                chosen one is below 0 it became less likely than it was
  fell          shares of rows where rho_w < 0, rho_l < 0, and both
  calibration   of p = sigma(beta h) with a reference, and of sigma(d), as
                predictions of the label, which is 1 where the row has none.
                Pairs count in both orders: confidence is max(p, 1 - p), in ten
                bins of equal width, and `right` is the probability that the
                label gives to the side it is confident of (one half at p =
                1/2). Brier score: mean of (p - label)^2. Log loss: mean of
                -label log p - (1 - label) log(1 - p). ECE: mean over pairs of
                |confidence - right| of their bin.
  length        accuracy and margin (of h, else of d) by n_w - n_l, split at its
                quantiles; rows of one difference stay together
Intervals are of 95%, by the percentile bootstrap over rows, drawn with seed 0.

A line of --out:
  {\"row\":0,\"log_probs\":{\"chosen\":-43.7,\"rejected\":-61.0},\"tokens\":{...},
   \"reference\":{...},\"rho\":{...},\"d\":17.3,\"h\":1.2,\"p\":0.53,\"label\":1.0,
   \"losses\":{\"dpo\":0.63,...}}
p is sigma(beta h), without a reference sigma(d).

Examples:
  $ expo eval pairs --model runs/dpo --reference runs/sft \\
      --data test.jsonl.gz --out rows.jsonl
  $ expo eval pairs --model runs/dpo --reference runs/sft --data test.jsonl \\
      --loss dpo:beta=0.05
  $ expo eval pairs --model Qwen/Qwen2-0.5B --data test.jsonl --json

A file --out is written when everything is known, whole or not at all.";

impl PairsArgs {
    /// The device that scoring asks for.
    pub fn device(&self) -> DeviceRequest {
        DeviceRequest::by_flag(&self.compute)
    }
}

/// Runs the command.
pub fn run(args: &PairsArgs) -> anyhow::Result<()> {
    let out = output(args)?;
    let settings = Settings {
        beta: args.beta,
        length_buckets: args.length_buckets,
        draws: Draws {
            count: args.bootstrap,
            ..Draws::default()
        },
        ..Settings::new(args.loss.clone())
    };
    flagged(settings.validate())?;
    let rows = configure(args)?;
    let mut progress = Progress::new();
    let scored = score_pairs(&rows, &mut |event| progress.show(event));
    progress.close();
    let pairs = flagged(scored)?;
    let (report, lines) = evaluate(&pairs.rows, &pairs.examples, &settings)?;
    if let Some(out) = &out {
        write(out, &lines)?;
    }
    let text = match args.json {
        true => object(&report, &pairs, args)?,
        false => tables::text(&report, args.out.as_deref())?,
    };
    match &args.out {
        Some(out) => answer_beside(out, &text),
        None => answer(&text),
    }
}

fn configure(args: &PairsArgs) -> Result<PairRows> {
    let has_reference = args.reference.is_some() || args.reference_log_probs.is_some();
    let available = Available::before(has_reference, args.samples.is_some());
    let needs = needs(&args.loss, available)?;
    let mut rows = args.rows.rows(&args.data)?;
    let format = rows.format;
    if !format.has_pairs {
        let what = format!("rows of the format `{}` are no pairs", format.name);
        return Err(Error::input(what)
            .hint("hh, pairs or alpaca_eval")
            .at(&args.data));
    }
    let mut model = args.compute.model(&args.model);
    model.reference.clone_from(&args.reference);
    model
        .reference_revision
        .clone_from(&args.reference_revision);
    rows.scores = match args.scores {
        UseOfScores::Ignore => Scores::Ignore,
        UseOfScores::Check => Scores::Check,
        UseOfScores::BradleyTerry => Scores::BradleyTerry,
    };
    Ok(PairRows {
        model,
        files: args.data.clone(),
        rows,
        samples: args.samples.clone(),
        reference_log_probs: args.reference_log_probs.clone(),
        needs,
        micro_batch_tokens: args.batch.micro_batch_tokens,
        shrink: args.rows.shrink(),
    })
}

/// Where the lines go.
fn output(args: &PairsArgs) -> Result<Option<Output>> {
    let inputs = || {
        let rows = paths([&args.data].into_iter().chain(&args.samples));
        rows.chain(args.reference_log_probs.clone())
    };
    let existing = Existing::overwrite(args.overwrite);
    let out = args.out.as_ref();
    out.map(|out| open(out, existing, inputs())).transpose()
}

fn write(out: &Output, lines: &[Line]) -> Result<()> {
    out.write(|file| {
        for line in lines {
            let line = json_line(line)?;
            file.write_all(line.as_bytes())
                .map_err(|error| Error::io(out.path(), &error))?;
        }
        Ok(())
    })
}

/// The report, and what it is of.
fn object(report: &Report, pairs: &Pairs, args: &PairsArgs) -> anyhow::Result<String> {
    let mut object = serde_json::to_value(report)?;
    let own = serde_json::json!({
        "model": {"name": args.model, "hash": pairs.policy},
        "reference": pairs.reference.as_ref().map(|hash| {
            let file = args.reference_log_probs.as_ref().map(|path| path.display().to_string());
            serde_json::json!({"name": args.reference.clone().or(file), "hash": hash})
        }),
        "data": args.data.to_string(),
        "out": args.out,
    });
    if let (Value::Object(object), Value::Object(own)) = (&mut object, own) {
        object.extend(own);
    }
    Ok(format!("{object}\n"))
}
