//! `expo data lint`: finds faults of a dataset before a run.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use expo::config::{RowsConfig, Source};
use expo::data::format::Format;
use expo::data::lint::{Check, Finding, LengthBias, LengthSummary, Level};
use expo::data::{Files, RowConfig};
use expo::error::{Error, Result};
use expo::eval::interval::{Interval, wilson};
use expo::inspect::{LintedSplit, lint_files, lint_run};
use expo::run_dir::RowCounts;
use expo::session::Event;
use serde_json::{Value, json};

use super::super::args::format;
use super::super::error::with_flags;
use super::super::progress::Progress;
use super::super::{answer, grouped};
use super::check_unset;

/// Check a dataset: duplicates, leaks, length bias, damaged text
#[derive(Args)]
#[command(after_long_help = HELP)]
pub struct LintArgs {
    /// Check these rows; several files are one dataset, rows.jsonl[:100] takes the first 100
    #[arg(
        value_name = "FILE",
        value_parser = str::parse::<Files>,
        required_unless_present = "config",
        conflicts_with = "config"
    )]
    files: Vec<Files>,

    /// Check whether these evaluation rows occur among the training rows; may be repeated
    #[arg(long, value_name = "FILE", value_parser = str::parse::<Files>, conflicts_with = "config")]
    eval: Vec<Files>,

    /// Read rows of this format; by default, the one that the columns show
    #[arg(long, value_parser = Format::named, conflicts_with = "config")]
    format: Option<&'static Format>,

    /// Check the training and evaluation rows of this config
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set a key of the config; may be repeated, the last value wins
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,

    /// Exit with code 1 if there is a warning, for CI
    #[arg(long)]
    strict: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Reads the rows as a run would and prints each fault with the number of rows,
their share and the first places. No model is needed. With --config, rows also
go through the model's tokenizer and chat template if these are on this machine,
and rows that a run would cut or leave out are reported.

A warning is most likely a fault; a note is normal in many datasets.

Findings, by their names in JSON (n: a note):
  unusable                     a run leaves the row out; the reason is given
  duplicate_row                prompt and answers of an earlier row
  near_duplicate               the same except for case and white space
  duplicate_prompt (n)         prompt of an earlier row, with other answers
  contradiction                an earlier row has the opposite label
  leaked_row, leaked_prompt    evaluation rows that are in the training rows
  same_answers                 chosen and rejected are equal
  scores_disagree              score_chosen < score_rejected
  label_disagrees              preference < 0.5
  length_bias                  of 100 pairs or more, the longer answer is chosen
                               in more than 60% or less than 40%
  label_imbalance              one label is missing, or on less than 10%
  empty_prompt, prompt_begins_with_space (n), prompt_ends_with_space,
  answers_begin_differently    white space between prompt and answer
  turn_in_answer, role_marker, unbalanced_markers, turn_order
                               turns inside texts; turns that do not alternate
  cut (n)                      the length limits cut the row (with --config)
  control_character, replacement_character, mojibake,
  invisible_character (n), private_character (n)
                               damaged text
  rare_script (n)              a script that less than 1 row in 1,000 has

\"= row 17\" is the row that is repeated, counted from 0 as in
expo data show --row.

Lengths are in characters, and with --config also in tokens. \"The longer answer
is chosen\" counts a tie as one half. Intervals are of 95%.

Examples:
  $ expo data lint train.jsonl.gz
  $ expo data lint train.jsonl more.jsonl --eval test.jsonl --json
  $ expo data lint --config run.toml --strict";

/// Runs the command.
pub fn run(args: &LintArgs) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let outcome = lint(args, &mut progress);
    progress.close();
    let splits = outcome?;
    let text = match args.json {
        true => format!("{}\n", object(&splits)),
        false => splits
            .iter()
            .enumerate()
            .map(table)
            .collect::<Vec<_>>()
            .join("\n"),
    };
    answer(&text)?;
    match warnings(&splits) {
        0 => Ok(()),
        _ if !args.strict => Ok(()),
        1 => Err(Error::failed("there is 1 warning").into()),
        warnings => Err(Error::failed(format!("there are {warnings} warnings")).into()),
    }
}

fn lint(args: &LintArgs, progress: &mut Progress) -> Result<Vec<LintedSplit>> {
    let mut observe = |event: Event| progress.show(event);
    if let Some(path) = &args.config {
        let source = Source::open(path, &args.set)?;
        let splits = lint_run(&RowsConfig::of(&source)?, &mut observe);
        let mut splits = splits.map_err(|error| source.locate(error))?;
        for tokens in splits.iter_mut().filter_map(|split| split.tokens.as_mut()) {
            if let Err(error) = tokens {
                *error = source.locate(error.clone());
            }
        }
        return Ok(splits);
    }
    check_unset(&args.set, "give --config FILE")?;
    let joined = |files: &[Files]| files.iter().cloned().reduce(Files::and);
    let train = joined(&args.files).ok_or_else(|| Error::input("neither a file nor a config"))?;
    let rows = RowConfig::new(format(args.format, &train)?);
    lint_files(&train, joined(&args.eval).as_ref(), &rows, &mut observe)
}

fn warnings(splits: &[LintedSplit]) -> usize {
    let of = |split: &LintedSplit| split.report.warnings() + usize::from(split.is_refused());
    splits.iter().map(of).sum()
}

fn name(split: usize) -> &'static str {
    ["train", "eval"][split.min(1)]
}

fn object(splits: &[LintedSplit]) -> Value {
    let split = |split: &LintedSplit| {
        let mut object = json!(split.report);
        object["files"] = json!(split.files.to_string());
        if let Some(bias) = &split.report.statistics.length_bias {
            object["statistics"]["length_bias"] = bias_object(bias);
        }
        object["census"] = Value::Null;
        object["refused"] = Value::Null;
        match &split.tokens {
            None => {}
            Some(Ok(tokens)) => {
                object["census"] = json!(RowCounts::from(&tokens.report));
                object["census"]["length_bias"] =
                    json!(tokens.length_bias.as_ref().map(bias_object));
            }
            Some(Err(error)) => object["refused"] = json!(with_flags(error)),
        }
        object
    };
    let mut object = json!({"warnings": warnings(splits), "train": null, "eval": null});
    for (index, linted) in splits.iter().enumerate() {
        object[name(index)] = split(linted);
    }
    object
}

fn bias_object(bias: &LengthBias) -> Value {
    let mut object = json!(bias);
    object["accuracy"] = json!(bias.accuracy());
    object["accuracy_interval"] = json!(wilson(bias.right(), bias.pairs));
    object["mean_difference_interval"] = json!(difference(bias));
    object
}

fn difference(bias: &LengthBias) -> Interval {
    // The two-sided 5% point of the normal distribution.
    let half = 1.959_963_984_540_054 * bias.standard_error;
    Interval {
        low: bias.mean_difference - half,
        high: bias.mean_difference + half,
    }
}

fn table((index, split): (usize, &LintedSplit)) -> String {
    let report = &split.report;
    let mut text = format!("{}: {}\n", name(index), split.files);
    for (name, count) in [("rows", report.rows), ("usable", report.usable)] {
        let _ = writeln!(text, "{name:<34}{:>10}", grouped(count));
    }
    for finding in &report.findings {
        line(finding, &mut text);
    }
    let is_clean = |check: &&Check| {
        !report
            .findings
            .iter()
            .any(|finding| finding.check == **check)
    };
    // Leaks are looked for in evaluation rows, cuts where there are tokens.
    let looked = |check: &&Check| match check {
        Check::LeakedRow | Check::LeakedPrompt => index > 0,
        Check::Cut => matches!(split.tokens, Some(Ok(_))),
        _ => true,
    };
    let clean = Check::ALL.iter().filter(looked).filter(is_clean);
    let clean: Vec<&str> = clean.map(|check| check.name()).collect();
    let _ = writeln!(text, "nothing found: {}", clean.join(", "));
    lengths(split, &mut text);
    match &split.tokens {
        None => {}
        Some(Ok(tokens)) => {
            let _ = write!(text, "\n{}", tokens.report);
            if let Some(bias) = &tokens.length_bias {
                bias_lines(bias, "tokens", &mut text);
            }
        }
        Some(Err(error)) => {
            let _ = writeln!(
                text,
                "\nwarning: a run would refuse these rows: {}",
                with_flags(error)
            );
        }
    }
    text
}

fn line(finding: &Finding, text: &mut String) {
    let level = match finding.level {
        Level::Warning => "warning",
        Level::Note => "note",
    };
    let name = finding.check.name();
    let detail = finding.detail.as_ref();
    let mut detail = detail.map_or(String::new(), |detail| format!(" ({detail})"));
    if !finding.fact.is_empty() {
        detail = format!("{detail}: {}", finding.fact);
    }
    let _ = writeln!(
        text,
        "{level:<8}{name:<26}{:>10} {:>6.2}%  {}{}",
        grouped(finding.rows),
        100.0 * finding.share,
        finding.check,
        detail
    );
    if !finding.first.is_empty() {
        let more = if finding.rows > finding.first.len() {
            ", ..."
        } else {
            ""
        };
        let _ = writeln!(text, "{:8}{}{more}", "", finding.first.join(", "));
    }
}

fn lengths(split: &LintedSplit, text: &mut String) {
    let statistics = &split.report.statistics;
    let heads = ["count", "mean", "median", "p95", "max"];
    let heads: String = heads.iter().map(|head| format!("{head:>10}")).collect();
    let _ = writeln!(text, "\n{:<18}{heads}", "characters");
    for (name, summary) in [
        ("  prompt", statistics.prompt),
        ("  chosen", statistics.chosen),
        ("  rejected", statistics.rejected),
        ("messages", statistics.messages),
        ("assistant turns", statistics.assistant_turns),
    ] {
        let LengthSummary {
            count,
            mean,
            spread,
        } = summary;
        if count > 0 {
            let counts = [spread.median, spread.p95, spread.max];
            let counts: String = counts.iter().map(|count| format!("{count:>10}")).collect();
            let _ = writeln!(text, "{name:<18}{count:>10}{mean:>10.1}{counts}");
        }
    }
    if let Some(bias) = &statistics.length_bias {
        bias_lines(bias, "characters", text);
    }
}

fn bias_lines(bias: &LengthBias, unit: &str, text: &mut String) {
    let share = wilson(bias.right(), bias.pairs).map(|Interval { low, high }| {
        format!(" (95%: {:.1}% to {:.1}%)", 100.0 * low, 100.0 * high)
    });
    let _ = writeln!(
        text,
        "the longer answer is chosen in {:.1}% of {} pairs{}, {} of them equally long",
        100.0 * bias.accuracy(),
        grouped(bias.pairs),
        share.unwrap_or_default(),
        grouped(bias.equal)
    );
    let Interval { low, high } = difference(bias);
    let _ = writeln!(
        text,
        "chosen - rejected: {:.1} {unit} (95%: {low:.1} to {high:.1})",
        bias.mean_difference
    );
}
