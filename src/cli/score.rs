//! `expo score`: writes the log-probs of responses to a file.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use expo::config::{Config, Source};
use expo::data::Files;
use expo::error::{Error, Result};
use expo::io::output::Output;
use expo::sample::run_datasets;
use expo::score::{ScoreCounts, ScoreData, score_data, score_run};
use expo::session::{Event, Session};
use serde_json::json;

use super::args::{BatchArgs, ComputeArgs, RowArgs};
use super::dispatch::DeviceRequest;
use super::error::flagged;
use super::out::{Existing, answer_beside, open, paths};
use super::progress::Progress;
use super::{grouped, launcher};

/// Write the log-probs of responses under a model to a file
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct ScoreArgs {
    /// Read this config, a TOML file; --config FILE is the same
    #[arg(
        value_name = "FILE",
        group = "configured",
        conflicts_with_all = ["RowArgs", "BatchArgs", "ComputeArgs"]
    )]
    file: Option<PathBuf>,

    /// Score the training and evaluation rows of this run under its reference
    #[arg(
        long,
        value_name = "FILE",
        group = "configured",
        conflicts_with_all = ["RowArgs", "BatchArgs", "ComputeArgs"]
    )]
    config: Option<PathBuf>,

    /// Set a key of the config; may be repeated, the last value wins
    #[arg(long, value_name = "SECTION.KEY=VALUE", requires = "configured")]
    set: Vec<String>,

    /// Score under this model: a directory, or owner/name on the hub
    #[arg(
        long,
        value_name = "MODEL",
        requires = "data",
        required_unless_present = "configured",
        conflicts_with = "configured"
    )]
    model: Option<String>,

    /// Score these rows, .jsonl, .parquet, .csv and others; rows.jsonl[:100] takes the first 100
    #[arg(long, value_name = "FILE", requires = "model", value_parser = str::parse::<Files>)]
    data: Option<Files>,

    /// Score these responses drawn from a model beside those of the rows
    #[arg(long, value_name = "FILE", requires = "model", value_parser = str::parse::<Files>)]
    samples: Option<Files>,

    #[command(flatten)]
    rows: RowArgs,

    #[command(flatten)]
    batch: BatchArgs,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Write the log-probs to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Replace the file --out; a link, a pipe, a device or a file that is read never is
    #[arg(long)]
    overwrite: bool,

    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Writes a line per row with the log-prob of each response, in nats, summed over
its tokens, and the number of tokens:
  {\"row\":0,\"chosen\":{\"log_prob\":-43.69,\"tokens\":17},\"rejected\":{...},
   \"sampled\":[{...}],...}
Rows are counted from 0, unusable ones included. Each line ends with hashes of
tokens, model and tokenizer, by which a run checks that the log-probs are the
ones it needs.

With --config, the rows are those of the run, with its samples, length limits
and, for KTO, mismatched answers. A run with data.reference_log_probs = \"OUT\"
then skips its own scoring pass, also on another machine. With --model, the
limits are 512 and 256 tokens as in a config, or what the model can hold.

Columns of the rows:
  hh           chosen, rejected: whole transcripts; preference
  pairs        prompt, chosen, rejected; preference
  unpaired     prompt, completion, label (true: desirable)
  prompts      prompt; its responses come from --samples
  sft          messages; or prompt, completion; or text
  alpaca_eval  instruction, output_1, output_2, preference in [1, 2]
  --samples    prompt, response, finish_reason; optionally token_ids, index
Prompts and answers are strings, or lists of {role, content}.

Examples:
  $ expo score --model EleutherAI/pythia-160m --data test.jsonl.gz --out s.jsonl
  $ expo score --config run.toml --out reference.jsonl
  $ expo train --config run.toml --set data.reference_log_probs=reference.jsonl";

impl ScoreArgs {
    /// The device that the pass asks for.
    pub fn device(&self) -> Option<DeviceRequest> {
        match self.path() {
            Some(path) => DeviceRequest::by_config(path, &self.set),
            None => Some(DeviceRequest::by_flag(&self.compute)),
        }
    }

    /// The config, if one is named.
    fn path(&self) -> Option<&Path> {
        self.config.as_deref().or(self.file.as_deref())
    }
}

/// Runs the command.
pub fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let outcome = score(&args, &mut progress);
    progress.close();
    let scored = outcome?;
    let text = match args.json {
        true => object(&scored, &args),
        false => table(&scored, &args),
    };
    answer_beside(&args.out, &text)
}

fn score(args: &ScoreArgs, progress: &mut Progress) -> Result<ScoreCounts> {
    let existing = Existing::overwrite(args.overwrite);
    if let Some(path) = args.path() {
        let source = Source::open(path, &args.set)?;
        let config = Config::of(&source)?;
        let inputs = paths(config.data.files()).chain([path.to_owned()]);
        let out = open(&args.out, existing, inputs)?;
        return of_run(&config, &out, progress).map_err(|error| source.locate(error));
    }
    let (Some(name), Some(data)) = (&args.model, &args.data) else {
        return Err(Error::input("neither --config nor --model with --data"));
    };
    let out = open(
        &args.out,
        existing,
        paths([data].into_iter().chain(&args.samples)),
    )?;
    let data = ScoreData {
        model: args.compute.model(name),
        files: data.clone(),
        rows: args.rows.rows(data)?,
        samples: args.samples.clone(),
        micro_batch_tokens: args.batch.micro_batch_tokens,
        shrink: args.rows.shrink(),
        ranks: launcher::ranks(),
    };
    flagged(score_data(&data, &out, &mut |event| progress.show(event)))
}

/// Scores the rows of a run under its reference.
fn of_run(config: &Config, out: &Output, progress: &mut Progress) -> Result<ScoreCounts> {
    if !config.has_reference() {
        let name = config.loss.name();
        return Err(Error::input(format!("the loss {name} has no reference"))
            .hint("score a model by itself: expo score --model MODEL --data FILE")
            .at_key("loss"));
    }
    let mut observe = |event: Event| progress.show(event);
    let session = Session::open(&config.model, &mut observe)?;
    let session = session.with_chat(&config.data.rows.tokens.chat)?;
    let (adapter, seed) = (config.adapter.as_ref(), config.run.seed);
    let session = session.with_adapter(adapter, seed, &mut observe)?;
    let session = session.with_ranks(&launcher::ranks());
    let datasets = run_datasets(config, &session, &mut observe)?;
    score_run(config, &session, &datasets, out, &mut observe)
}

fn object(scored: &ScoreCounts, args: &ScoreArgs) -> String {
    let ScoreCounts {
        rows,
        responses,
        tokens,
    } = scored;
    let object = json!({"rows": rows, "responses": responses, "tokens": tokens, "out": args.out});
    format!("{object}\n")
}

fn table(scored: &ScoreCounts, args: &ScoreArgs) -> String {
    let mut text = String::new();
    for (name, count) in [
        ("rows", scored.rows),
        ("responses", scored.responses),
        ("scored tokens", scored.tokens),
    ] {
        let _ = writeln!(text, "{name:<14}{:>14}", grouped(count));
    }
    let _ = writeln!(text, "output {}", args.out.display());
    text
}
