//! `expo score`: log-probs of responses, as a file.

use std::fmt::Write;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use expo::config::{Config, Dtype, MICRO_BATCH_TOKENS, ModelConfig};
use expo::data::format::Format;
use expo::data::{Files, RowConfig};
use expo::error::{Error, Result};
use expo::sample::run_datasets;
use expo::score::{ScoreCounts, ScoreData, score_data, score_run};
use expo::session::{Event, Session};
use serde_json::json;

use super::progress::Progress;
use super::{answer, grouped};

/// Writes the log-probs of responses under a model.
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct ScoreArgs {
    /// Scores the training and evaluation rows of a run under its reference.
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    config: Option<PathBuf>,

    /// With --config: sets a key of it; may be given several times, the later one wins.
    #[arg(long, value_name = "SECTION.KEY=VALUE", requires = "config")]
    set: Vec<String>,

    /// The model: a folder, or a name on the hub.
    #[arg(
        long,
        value_name = "MODEL",
        requires = "data",
        conflicts_with = "config"
    )]
    model: Option<String>,

    /// The branch, tag or commit of a model on the hub.
    #[arg(long, value_name = "NAME", requires = "model")]
    revision: Option<String>,

    /// The rows, .jsonl or .jsonl.gz; rows.jsonl[:100] takes the first 100.
    #[arg(long, value_name = "FILE", requires = "model", value_parser = str::parse::<Files>)]
    data: Option<Files>,

    /// The layout of the rows, a name below; by default what the first row looks like.
    #[arg(long, requires = "model", value_parser = Format::named)]
    format: Option<&'static Format>,

    /// Responses drawn from a model, scored beside those of the rows.
    #[arg(long, value_name = "FILE", requires = "model", value_parser = str::parse::<Files>)]
    samples: Option<Files>,

    /// The most tokens of a prompt with any one of its responses.
    #[arg(long, value_name = "N", requires = "model")]
    max_length: Option<usize>,

    /// The most tokens that are left of a prompt where an example is too long.
    #[arg(long, value_name = "N", requires = "model")]
    max_prompt_length: Option<usize>,

    /// The most tokens computed at once.
    #[arg(long, value_name = "N", requires = "model")]
    micro_batch_tokens: Option<usize>,

    /// f32, or bf16: operands of products are, on a GPU weights and activations too [default: f32].
    #[arg(long, requires = "model")]
    dtype: Option<Dtype>,

    /// auto, cpu or cuda:N.
    #[arg(long, requires = "model")]
    device: Option<String>,

    /// Where the log-probs go.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Replaces the file --out if it is there.
    #[arg(long)]
    overwrite: bool,

    /// Prints the summary as one JSON object.
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
A line per row, with the log-prob of each response, a natural logarithm summed over its tokens, and
the number of them:
  {\"row\":0,\"chosen\":{\"log_prob\":-43.69,\"tokens\":17},\"rejected\":{...},\"sampled\":[{...}],...}
Rows are counted from 0, those that could not be used included. Hashes of the tokens, the model and
the tokenizer follow, by which a run knows whether the log-probs are the ones it needs.

With --config the rows are just those of the run: its samples, its length limits, for KTO the
mismatched answers. data.reference_log_probs = \"OUT\" then saves the run its own scoring pass, also
on another machine. With --model the limits are 512 and 256 tokens as in a config, or what the model
can hold if that is less.

Columns of the rows:
  hh           chosen, rejected: whole transcripts; preference
  pairs        prompt, chosen, rejected; preference
  unpaired     prompt, completion, label (true: desirable)
  prompts      prompt; its responses come from --samples
  sft          messages; or prompt, completion; or text
  alpaca_eval  instruction, output_1, output_2, preference in [1, 2]
  --samples    prompt, response, finish_reason, and optionally token_ids, index
Prompts and answers are strings, or lists of {role, content} for the model's chat template.

Examples:
  $ expo score --model EleutherAI/pythia-160m --data test.jsonl.gz --out scores.jsonl
  $ expo score --config run.toml --out reference.jsonl
  $ expo train --config run.toml --set data.reference_log_probs=reference.jsonl

Exit code: 0 done, 1 failed, 2 wrong input, 3 a log-prob that is not finite.";

/// Runs the command.
pub fn run(args: ScoreArgs) -> anyhow::Result<()> {
    expo::io::durable::check_writable(&args.out)?;
    if args.out.exists() && !args.overwrite {
        let error = Error::input("is there already").at(args.out.display());
        return Err(error
            .hint("choose another --out, or add --overwrite")
            .into());
    }
    let mut progress = Progress::new();
    let outcome = score(&args, &mut progress);
    progress.close();
    let scored = outcome?;
    answer(&match args.json {
        true => object(&scored, &args),
        false => table(&scored, &args),
    })?;
    Ok(())
}

fn score(args: &ScoreArgs, progress: &mut Progress) -> Result<ScoreCounts> {
    if let Some(path) = &args.config {
        let config = Config::open(path, &args.set)?;
        if !config.has_reference() {
            let name = config.loss.name();
            return Err(Error::input(format!("the loss {name} has no reference"))
                .hint("score a model by itself: expo score --model MODEL --data FILE"));
        }
        let mut observe = |event: Event| progress.show(event);
        let session = Session::open(&config.model, &mut observe)?;
        let datasets = run_datasets(&config, &session, &mut observe)?;
        return score_run(&config, &session, &datasets, &args.out, &mut observe);
    }
    let (Some(name), Some(data)) = (&args.model, &args.data) else {
        return Err(Error::input("neither --config nor --model with --data"));
    };
    let format = match args.format {
        Some(format) => format,
        None => {
            let format = Format::of_file(data)?;
            let hint = format.columns_hint();
            let _ = writeln!(std::io::stderr().lock(), "{data}: {hint}");
            format
        }
    };
    let mut model = ModelConfig::new(name);
    model.revision.clone_from(&args.revision);
    model.dtype = args.dtype.unwrap_or_default();
    if let Some(device) = &args.device {
        model.device.clone_from(device);
    }
    let mut rows = RowConfig::new(format);
    let limits = (args.max_length, args.max_prompt_length);
    rows.length = rows.length.with_limits(limits.0, limits.1);
    let data = ScoreData {
        model,
        files: data.clone(),
        rows,
        samples: args.samples.clone(),
        micro_batch_tokens: args.micro_batch_tokens.unwrap_or(MICRO_BATCH_TOKENS),
        shrink: args.max_length.is_none() && args.max_prompt_length.is_none(),
    };
    score_data(&data, &args.out, &mut |event| progress.show(event))
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
