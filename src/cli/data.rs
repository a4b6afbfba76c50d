//! `expo data`: shows, checks and downloads datasets.

mod fetch;
mod lint;
mod look;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use expo::config::{RowsConfig, Source};
use expo::data::format::Format;
use expo::data::{Files, Inspection, Part, Response, Tokenizer};
use expo::error::{Error, Result};
use expo::inspect::{RowSplit, Shown, show};
use expo::run_dir::RowCounts;
use serde_json::{Value, json};

use super::answer;
use super::error::located;
use super::progress::Progress;

/// Show, check and download datasets
#[derive(Args)]
#[command(after_long_help = DATA_HELP)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    Show(ShowArgs),
    Lint(lint::LintArgs),
    Fetch(fetch::FetchArgs),
}

const DATA_HELP: &str = "\
Examples:
  $ expo data show rows.jsonl
  $ expo data show --config run.toml
  $ expo data show --config run.toml --row 3 --split eval
  $ expo data lint train.jsonl --eval test.jsonl
  $ expo data fetch --config run.toml";

/// Show what a run reads from its rows, and one row token by token
#[derive(Args)]
#[command(after_long_help = HELP)]
struct ShowArgs {
    /// Show these rows without a config; several files are one dataset
    #[arg(
        value_name = "FILE",
        value_parser = str::parse::<Files>,
        required_unless_present = "config",
        conflicts_with_all = ["config", "split"]
    )]
    files: Vec<Files>,

    /// Read rows of this format; by default, the one that the columns show
    #[arg(long, value_parser = Format::named, conflicts_with = "config")]
    format: Option<&'static Format>,

    /// Tokenize the row with the tokenizer of this model
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    model: Option<String>,

    /// Read this config, a TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set a key of the config, or of FILE beside --model a key of [data]; may be repeated, the last
    /// value wins
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,

    /// Show the row of this number, counted from 0 as in score files
    #[arg(long, value_name = "N")]
    row: Option<usize>,

    /// Read the rows of data.train, data.eval or data.unlabelled
    #[arg(long, value_enum, default_value_t = SplitName::Train)]
    split: SplitName,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
    Train,
    Eval,
    Unlabelled,
}

const HELP: &str = "\
With FILE, detects format and columns, and prints the lines of a config for
them, how many rows can be used, and one row.

With --config, reads the rows as the run would: tokenizer, chat template,
samples, length limits. Prints how many rows are left out, for which reason and
on which lines, how many prompts and answers are cut, and lengths in tokens.
Weights are neither read nor downloaded.

With --row, also prints a row as the model sees it: prompt and answers as text
and as tokens, one token per line:
  +   42  \" Yes\"     scored: its log-prob counts
  .   42  \" Yes\"     context: prompt, another speaker's turn, or the first token
                     of a text without a prompt
What to look for:
  - the prompt ends where the answer begins, without white space of the answer
  - the answer ends with an end token
  - special tokens of the chat template are one id each
  - \"cut\" is rare
  - \"boundary merge\": prompt and answer share a token when tokenized together,
    so the answer was tokenized by itself

The config may be that of expo train, expo sft or expo sample; for the last two
the answers are those that expo sft learns. Samples that a run draws itself
(data.samples = \"auto\") are not shown.

Rows are counted from 0 through all files, rows that are left out included.

Examples:
  $ expo data show rows.jsonl
  $ expo data show rows.jsonl --model runs/tiny --row 3
  $ expo data show --config run.toml
  $ expo data show --config run.toml --row 0
  $ expo data show --config run.toml --split eval --row 17 --json";

/// Runs the command.
pub fn run(args: &DataArgs) -> anyhow::Result<()> {
    let args = match &args.command {
        DataCommand::Show(args) => args,
        DataCommand::Lint(args) => return lint::run(args),
        DataCommand::Fetch(args) => return fetch::run(args),
    };
    let Some(config) = args.config.clone().or_else(|| config_among(&args.files)) else {
        let files = args.files.iter().cloned().reduce(Files::and);
        let files = files.ok_or_else(|| Error::input("neither a file nor a config"))?;
        if args.model.is_none() {
            check_unset(
                &args.set,
                "give --config FILE, or --model MODEL for keys of [data]",
            )?;
        }
        return look::run(args, &files);
    };
    let source = Source::open(&config, &args.set)?;
    located(&source, print(args, &RowsConfig::of(&source)?))
}

/// Refuses overrides without a config.
fn check_unset(set: &[String], hint: &str) -> Result<()> {
    match set.first() {
        None => Ok(()),
        Some(set) => Err(Error::input("--set needs a config")
            .hint(hint)
            .at(format!("--set {set}"))),
    }
}

/// The config that is given as a file of rows: no rows are TOML.
fn config_among(files: &[Files]) -> Option<PathBuf> {
    let [file] = files else { return None };
    let is_toml = |name: &Path| name.extension().is_some_and(|ending| ending == "toml");
    file.names().find(|name| is_toml(name)).map(Path::to_owned)
}

fn print(args: &ShowArgs, config: &RowsConfig) -> anyhow::Result<()> {
    let split = match args.split {
        SplitName::Train => RowSplit::Train,
        SplitName::Eval => RowSplit::Eval,
        SplitName::Unlabelled => RowSplit::Unlabelled,
    };
    let mut progress = Progress::new();
    let outcome = show(config, split, args.row, &mut |event| progress.show(event));
    progress.close();
    let shown = outcome?;
    let text = match args.json {
        true => format!("{}\n", object(&shown)?),
        false => table(&shown)?,
    };
    answer(&text)?;
    Ok(())
}

fn object(shown: &Shown) -> Result<Value> {
    let row = shown.row.as_ref();
    let row = row
        .map(|row| row_object(row, &shown.tokenizer))
        .transpose()?;
    let mut object = json!({"census": RowCounts::from(&shown.dataset.report), "row": row});
    if let Some(path) = &shown.missing_samples {
        object["missing_samples"] = json!(path);
    }
    Ok(object)
}

fn row_object(row: &Inspection, tokenizer: &Tokenizer) -> Result<Value> {
    let tokens = |ids: &[u32], scored: &dyn Fn(usize) -> bool| -> Result<Vec<Value>> {
        let pieces = tokenizer.pieces(ids)?.into_iter().zip(ids).enumerate();
        let token = |(at, (text, id))| json!({"id": id, "text": text, "scored": scored(at)});
        Ok(pieces.map(token).collect())
    };
    let example = &row.example;
    let response = |(response, part): (&Response, &Part)| -> Result<Value> {
        Ok(json!({
            "role": response.role.name(),
            "text": part.text,
            "cut": part.cut,
            "boundary_merge": part.merged,
            "end_token": is_finished(response, tokenizer),
            "scored_tokens": example.scored_tokens(response),
            "tokens": tokens(&response.ids, &|at| example.is_scored(response, at))?,
        }))
    };
    let responses = example.responses.iter().zip(&row.responses);
    Ok(json!({
        "row": example.row,
        "place": row.place,
        "preference": example.preference,
        "prompt": {
            "text": row.prompt.text,
            "cut": row.prompt.cut,
            "tokens": tokens(&example.prompt, &|_| false)?,
        },
        "responses": responses.map(response).collect::<Result<Vec<_>>>()?,
    }))
}

fn table(shown: &Shown) -> Result<String> {
    let mut text = shown.dataset.report.to_string();
    if let Some(path) = &shown.missing_samples {
        let _ = writeln!(text, "{:<22}{}", "samples", missing(path));
    }
    row_table(shown, &mut text)?;
    Ok(text)
}

fn row_table(shown: &Shown, text: &mut String) -> Result<()> {
    let Some(row) = &shown.row else {
        return Ok(());
    };
    let (example, tokenizer) = (&row.example, &shown.tokenizer);
    let _ = write!(text, "\nrow {}, {}", example.row, row.place);
    if let Some(preference) = example.preference {
        let _ = write!(text, ", p(chosen > rejected) = {preference}");
    }
    text.push('\n');
    let length = example.prompt.len();
    heading(
        "prompt",
        &[count(length, "token"), cut(&row.prompt)],
        &row.prompt,
        text,
    );
    lines(&example.prompt, tokenizer, |_| false, text)?;
    for (response, part) in example.responses.iter().zip(&row.responses) {
        let scored = example.scored_tokens(response);
        let notes = [
            count(response.ids.len(), "token"),
            format!("{scored} scored"),
            cut(part),
            said(part.merged, "boundary merge"),
            said(!is_finished(response, tokenizer), "no end token"),
        ];
        heading(response.role.name(), &notes, part, text);
        let is_scored = |at| example.is_scored(response, at);
        lines(&response.ids, tokenizer, is_scored, text)?;
    }
    Ok(())
}

/// What is to be said of a file of samples that does not exist.
pub fn missing(path: &Path) -> String {
    format!(
        "left out: {} does not exist yet; write it with `expo sample`, or set data.samples = \"auto\"",
        path.display()
    )
}

fn heading(name: &str, notes: &[String], part: &Part, text: &mut String) {
    let notes: Vec<&str> = notes
        .iter()
        .map(String::as_str)
        .filter(|n| !n.is_empty())
        .collect();
    let _ = writeln!(text, "\n{name}: {}\n{:?}", notes.join(", "), part.text);
}

fn lines(
    ids: &[u32],
    tokenizer: &Tokenizer,
    is_scored: impl Fn(usize) -> bool,
    text: &mut String,
) -> Result<()> {
    for (at, (piece, id)) in tokenizer.pieces(ids)?.iter().zip(ids).enumerate() {
        let mark = if is_scored(at) { '+' } else { '.' };
        let _ = writeln!(text, "  {mark} {id:>7}  {piece:?}");
    }
    Ok(())
}

fn is_finished(response: &Response, tokenizer: &Tokenizer) -> bool {
    let last = response.ids.last();
    last.is_some_and(|id| tokenizer.ends().contains(id))
}

fn cut(part: &Part) -> String {
    said(part.cut, "cut")
}

fn said(is_so: bool, word: &str) -> String {
    if is_so {
        word.to_owned()
    } else {
        String::new()
    }
}

fn count(number: usize, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {what}{ending}")
}
