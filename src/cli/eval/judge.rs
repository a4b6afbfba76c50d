//! `expo eval judge`: the win rate of samples, by a judge.

mod open;
mod report;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use expo::data::Files;
use expo::data::format::Format;
use expo::error::{Error, Result};
use expo::eval::judge::{
    Answer, Asked, Cache, Call, Figures, Items, Judge, Judged, TooLong, ask, calls, figures,
    judged, keys,
};
use expo::io::output::Output;
use expo::session::StopCondition;
use serde_json::{Map, Value};

use super::super::args::ComputeArgs;
use super::super::dispatch::DeviceRequest;
use super::super::error::flagged;
use super::super::out::{Existing, answer_beside, file, is_same, open, paths};
use super::super::progress::Progress;
use super::super::stop::{Limit, ended, on_signal};
use super::super::{answer, grouped};
use open::Rule;

/// Compare a model's samples with chosen answers or another model's samples, by a judge.
#[derive(Args)]
#[command(after_long_help = report::HELP)]
pub struct JudgeArgs {
    /// Judge these samples, a file of `expo sample`: one response to each prompt; s.jsonl[:100] takes
    /// the first 100 lines
    #[arg(long, value_name = "FILE", value_parser = str::parse::<Files>)]
    samples: Files,

    /// Take the response of this number of each prompt, also of --against; by default the first
    #[arg(long, value_name = "N")]
    index: Option<u64>,

    /// Compare with the chosen answers of --data (`chosen`), or with another model's samples
    #[arg(long, value_name = "chosen|FILE")]
    against: String,

    /// With --against chosen: read these rows, .jsonl, .parquet, .csv and others; rows.jsonl[:100]
    /// takes the first 100
    #[arg(long, value_name = "FILE", value_parser = str::parse::<Files>)]
    data: Option<Files>,

    /// Read rows of this layout; by default the one that the first row has
    #[arg(long, requires = "data", value_parser = Format::named)]
    format: Option<&'static Format>,

    /// Render conversations with the chat template of this model, as the samples' prompts were
    #[arg(long, value_name = "MODEL", requires = "data")]
    tokenizer: Option<String>,

    /// Judge without a network: prefer the longer response, a sum of weights, or what a model prefers
    #[arg(long, value_name = "length|lexicon:FILE|model:MODEL")]
    judge: Option<Rule>,

    /// With --judge model: score by log pi(y|x) - log r(y|x) with this reference r
    #[arg(long, value_name = "MODEL")]
    judge_reference: Option<String>,

    /// With --judge model: skip or cut items that are longer than the judge's context, or fail
    #[arg(long, value_name = "RULE", value_enum, default_value_t = TooLongRule::Skip)]
    too_long: TooLongRule,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Ask this model at OPENAI_BASE_URL
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "judge",
        conflicts_with = "judge"
    )]
    judge_model: Option<String>,

    /// Ask this question; by default which response is more helpful and harmless
    #[arg(long, value_name = "FILE", conflicts_with = "judge")]
    template: Option<PathBuf>,

    /// Set keys of the request besides model and messages, a JSON object; null removes one
    #[arg(long, value_name = "JSON", conflicts_with = "judge", value_parser = object)]
    request: Option<Map<String, Value>>,

    /// Retry a question this many times when the judge is busy or unreachable
    #[arg(long, value_name = "N", default_value_t = 6, conflicts_with = "judge")]
    max_retries: u32,

    /// Give up an attempt after this time
    #[arg(
        long,
        value_name = "TIME",
        default_value = "120s",
        conflicts_with = "judge"
    )]
    timeout: Limit,

    /// Ask this many questions at the same time
    #[arg(long, value_name = "N", default_value_t = 8, conflicts_with = "judge")]
    concurrency: usize,

    /// Seed the orders, the choice of controls and the bootstrap
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Ask about each item in both orders
    #[arg(long)]
    both_orders: bool,

    /// Make each of the two controls of this many items
    #[arg(long, value_name = "N", default_value_t = 25)]
    controls: usize,

    /// Judge only the first N items
    #[arg(long, value_name = "N")]
    max_items: Option<usize>,

    /// Keep the judge's replies in this file, and read them from it [default: SAMPLES.judge.jsonl]
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,

    /// Print the first question and the number of questions, without asking
    #[arg(long)]
    dry_run: bool,

    /// Write a line per item to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Replace the file --out; a link, a pipe, a device or a file that is read never is
    #[arg(long, requires = "out")]
    overwrite: bool,

    /// Print one JSON object: counts, `win_rate` with its intervals, position, length, controls
    #[arg(long)]
    json: bool,
}

/// What becomes of items that are longer than the judge's context.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum TooLongRule {
    /// Leave them out, and say how many.
    Skip,
    /// Cut their answers at the end; leave out an item whose prompt alone is too long.
    Cut,
    /// Refuse them.
    Fail,
}

impl From<TooLongRule> for TooLong {
    fn from(rule: TooLongRule) -> Self {
        match rule {
            TooLongRule::Skip => Self::Skip,
            TooLongRule::Cut => Self::Cut,
            TooLongRule::Fail => Self::Fail,
        }
    }
}

fn object(text: &str) -> Result<Map<String, Value>> {
    let value = expo::io::untrusted::parse(text)
        .map_err(|error| Error::input(format!("not JSON: {error}")))?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Error::input("not a JSON object").hint("e.g. {\"temperature\": 0.5}")),
    }
}

impl JudgeArgs {
    /// The device that a judge which is a model asks for.
    pub fn device(&self) -> Option<DeviceRequest> {
        let computes = matches!(self.judge, Some(Rule::Model(_)));
        computes.then(|| DeviceRequest::by_flag(&self.compute))
    }
}

/// Runs the command.
pub fn run(args: &JudgeArgs) -> anyhow::Result<()> {
    flagged(check(args))?;
    let (cache, out) = outputs(args)?;
    let mut progress = Progress::new();
    let mut items = open::items(args, &mut progress)?;
    let mut judge = open::judge(args, &mut progress)?;
    progress.close();
    if let Judge::Offline(judge, _) = &mut judge {
        judge.fit(&mut items, args.too_long.into())?;
    }
    let calls = calls(&items.items, args.seed, args.both_orders, args.controls);
    if args.dry_run {
        return answer(&dry(&judge, &items, &calls, &cache)?);
    }
    let until = StopCondition {
        signal: on_signal()?,
        ..StopCondition::default()
    };
    let mut replies = Cache::open(&cache)?;
    let mut begun = false;
    let asked = ask(
        &judge,
        &items.items,
        &calls,
        &mut replies,
        args.concurrency,
        &|| until.reached().is_some(),
        &mut |done, total| match std::mem::replace(&mut begun, true) {
            false => progress.count("questions", done, total),
            true => progress.counted("questions", done, total),
        },
    );
    progress.close();
    let asked = asked?;
    if let (true, Some(reason)) = (asked.stopped, until.reached()) {
        let there = asked.replies.iter().filter(|reply| reply.is_ok()).count();
        let (there, total) = (grouped(there), grouped(calls.len()));
        let at = format!("after {there} of {total} replies");
        let saved = format!("saved in {}", cache.display());
        return ended(
            reason,
            &at,
            &format!("{saved}; run the same command to resume"),
        );
    }
    finish(args, &judge, &items, &calls, &asked, &cache, out.as_ref())
}

fn finish(
    args: &JudgeArgs,
    judge: &Judge,
    items: &Items,
    calls: &[Call],
    asked: &Asked,
    cache: &Path,
    out: Option<&Output>,
) -> anyhow::Result<()> {
    let grammar = judge.grammar();
    let judged = judged(&items.items, calls, &asked.replies, &grammar);
    let figures = figures(
        &items.items,
        calls,
        &asked.replies,
        &judged,
        &grammar,
        args.seed,
    );
    if let Some(out) = out {
        out.write(|file| {
            for (item, judged) in items.items.iter().zip(&judged) {
                let row = report::row(item, judged, calls, &asked.replies, &grammar);
                writeln!(file, "{row}").map_err(|error| Error::io(out.path(), &error))?;
            }
            Ok(())
        })?;
    }
    let about = report::About {
        judge,
        items,
        asked,
        seed: args.seed,
        both_orders: args.both_orders,
        cache,
        out: args.out.as_deref(),
    };
    let text = match args.json {
        true => report::object(&about, &figures),
        false => report::table(&about, &figures),
    };
    match &args.out {
        Some(out) => answer_beside(out, &text)?,
        None => answer(&text)?,
    }
    let again = matches!(judge, Judge::Endpoint(..));
    refuse_headline(&figures, asked, &judged, again)
}

/// The error of a judgement without a win rate; `again` if asking once more can help.
fn refuse_headline(
    figures: &Figures,
    asked: &Asked,
    judged: &[Judged],
    again: bool,
) -> anyhow::Result<()> {
    if figures.win_rate.is_some() {
        return Ok(());
    }
    let (failed, invalid, items) = (figures.failed, figures.invalid, figures.items);
    let mut what = format!(
        "no win rate: of {items} items {failed} failed and {invalid} are invalid, more than 2%"
    );
    let of_items = judged.iter().flat_map(|item| &item.calls);
    let why = of_items.filter_map(|&call| asked.replies[call].as_ref().err());
    // The last ones may not have been asked at all.
    if let Some(why) = why.clone().find(|why| *why != "not asked") {
        what += &format!("; the first failure: {why}");
    }
    if failed > 0 && again {
        what += "; run the same command to ask again for what failed";
    }
    Err(Error::failed(what).into())
}

/// The most questions at once: each has a thread.
const MOST_AT_ONCE: usize = 1024;

/// What clap does not see.
fn check(args: &JudgeArgs) -> Result<()> {
    let input = |what: &str, hint: &str| Err(Error::input(what).hint(hint));
    if !(1..=MOST_AT_ONCE).contains(&args.concurrency) {
        let valid = format!("in [1, {MOST_AT_ONCE}]");
        return Err(Error::must_be("concurrency", valid, args.concurrency));
    }
    if args.max_items == Some(0) {
        return Err(Error::must_be("max_items", ">= 1", 0));
    }
    if args.against == "chosen" && args.data.is_none() {
        return input(
            "--against chosen without --data",
            "name the rows that have the chosen answers",
        );
    }
    if args.against != "chosen" && args.data.is_some() {
        return input(
            "--data beside samples",
            "rows are read with --against chosen",
        );
    }
    let of_model = args.judge_reference.is_some()
        || args.too_long != TooLongRule::Skip
        || args.compute != ComputeArgs::default();
    match args.judge {
        Some(Rule::Model(_)) => Ok(()),
        _ if of_model => input(
            "--judge-reference, --too-long, --revision, --dtype and --device are about a judge that is a model",
            "name one with --judge model:MODEL",
        ),
        _ => Ok(()),
    }
}

/// The file of replies, and where the lines go.
fn outputs(args: &JudgeArgs) -> Result<(PathBuf, Option<Output>)> {
    let against: Files = args.against.as_str().into();
    let rows = || [&args.samples, &against].into_iter().chain(&args.data);
    let lexicon = match &args.judge {
        Some(Rule::Lexicon(path)) => Some(path.as_path()),
        _ => None,
    };
    let inputs = || {
        let others = args.template.as_deref().into_iter().chain(lexicon);
        paths(rows()).chain(others.map(Path::to_owned))
    };
    let cache = match (&args.cache, args.samples.names().next()) {
        (Some(path), _) => path.clone(),
        (None, Some(samples)) => beside(samples),
        (None, None) => return Err(Error::input("no --samples")),
    };
    file(&cache, Existing::Take, inputs())?;
    let Some(out) = &args.out else {
        return Ok((cache, None));
    };
    if *out == cache || is_same(out, &cache) {
        let error = Error::input("is the file of replies, too").at(cache.display());
        return Err(error.hint("name another --out"));
    }
    let existing = Existing::overwrite(args.overwrite);
    let out = open(out, existing, inputs())?;
    Ok((cache, Some(out)))
}

/// `samples.jsonl` has its replies in `samples.jsonl.judge.jsonl`.
fn beside(samples: &Path) -> PathBuf {
    let mut name = samples.as_os_str().to_owned();
    name.push(".judge.jsonl");
    name.into()
}

fn dry(judge: &Judge, items: &Items, calls: &[Call], cache: &Path) -> Result<String> {
    let replies = Cache::look(cache)?;
    let mut keys = keys(judge, &items.items, calls);
    keys.sort_unstable();
    keys.dedup();
    let there = keys.iter().filter(|key| replies.get(key).is_some()).count();
    let null = Answer::null();
    let first = calls.first().map_or(String::new(), |call| {
        let (prompt, answers) = call.texts(&items.items, &null);
        judge.question(prompt, answers)
    });
    let left_out = match items.skipped {
        0 => String::new(),
        skipped => format!("{} items are too long and are skipped\n", grouped(skipped)),
    };
    Ok(format!(
        "{first}\n\n{left_out}{} items, {} questions, of which {} are answered in {}\n",
        grouped(items.items.len()),
        grouped(keys.len()),
        grouped(there),
        cache.display()
    ))
}
