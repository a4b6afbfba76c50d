//! What `expo eval judge` prints and writes.

use std::fmt::Write;
use std::path::Path;

use expo::eval::interval::Interval;
use expo::eval::judge::{Asked, Call, Entry, Figures, Grammar, Item, Items, Judge, Judged};
use serde_json::{Value, json};

use super::super::super::grouped;

pub const HELP: &str = "\
The judge sees a prompt with two responses, A and B, and says which one is
better. Which of them is the model's is drawn for each item, by a hash of --seed
and the prompt; with --both-orders it is asked both ways, an item is won or lost
if both verdicts say so, and a tie otherwise (inconsistent). Prompts are joined
to the letter, as samples name them; lengths are in characters.

  win rate   (wins + ties / 2) / (wins + losses + ties), with Wilson's interval
             and the percentile bootstrap's over items (2,000 draws), both of
             95%
  position   the share of A among the verdicts, and the win rate where the
             model's response was A, was B
  length     the share of the longer response among the verdicts for responses
             of different length, and the win rate where the model's is longer,
             shorter, as long
  null       a control: an empty answer beside the model's response must lose
  identical  a control: the model's response beside itself; A should come half
             of the time, or a tie

An item is invalid if its reply is not a verdict, and failed without a reply. If
more than 2% of the items are either, no win rate is printed and the exit code
is 1. The same command then asks an endpoint again for those that failed.

Judges:
  --judge-model NAME     a model behind the OpenAI-compatible endpoint
                         OPENAI_BASE_URL (default https://api.openai.com/v1)
                         with the key OPENAI_API_KEY, both from the environment.
                         Without a key none is sent; with one, plain http goes
                         to this machine alone. The request has temperature 0
                         and max_tokens 512, or what --request says. HTTPS_PROXY
                         and NO_PROXY apply, except to this machine.
  --judge length         the longer response; the same length is a tie
  --judge lexicon:FILE   the larger sum of the weights of a response's words. A
                         line of the file is a word and a number; words are
                         compared in lower case
  --judge model:MODEL    the larger log pi(y|x) / |y|, or log pi(y|x) - log
                         r(y|x) with --judge-reference r: the reward of a model
                         that was trained on preferences. --too-long says what
                         becomes of items that are longer than its context: skip
                         (the default) and cut count them, fail refuses them

Asked again, with waits of 0.5 s, 1 s, 2 s ... 60 s less up to a half, and no
sooner than Retry-After says, up to ten minutes: statuses 408, 425, 429 and 5xx,
timeouts, connections that fail, answers that are no chat completion. 400, 401,
403, 404 and the rest end the run at once. The command stops after 20 questions
in a row that failed, or 5 where none was answered.

A template is a text with {prompt}, {response_a}, {response_b} and, at the end
of a line, {verdict:A|B} or {verdict:A|B|tie}, which allows ties. The last line
of a reply must be that line with one of the words in the placeholder's place,
to the letter. {{ and }} are braces. {nonce} is a number that none of the texts
contains: a response cannot close marks that have it, such as <reply_a-{nonce}>.

Each reply is a line of --cache: {\"key\", \"kind\", \"prompt\", \"model_is\", \"judge\",
\"reply\", ...}, found again by a hash of judge, endpoint, template, question and
settings. A run that was killed asks nothing twice. With --judge model the score
of each answer is a line, too, of kind \"score\": comparisons that share the file
score an answer once, if --judge-reference, --dtype and --too-long are the same.

--out has a line per item: {\"prompt\", \"outcome\", \"inconsistent\", \"characters\":
[model, against], \"calls\": [{\"model_is\", \"verdict\", \"reply\"} or {\"model_is\",
\"failed\"}]}.

Examples:
  $ expo eval judge --samples s.jsonl --against chosen --data test.jsonl \\
      --judge-model gpt-4.1
  $ expo eval judge --samples dpo.jsonl --against expo.jsonl \\
      --judge-model gpt-4.1 --both-orders
  $ expo eval judge --samples s.jsonl --against chosen --data test.jsonl \\
      --judge length
  $ expo eval judge --samples s.jsonl --against sft.jsonl \\
      --judge model:runs/dpo --judge-reference runs/sft

INT or TERM stops the command once the replies under way are stored.";

/// What a report says besides its figures.
pub struct About<'a> {
    pub judge: &'a Judge,
    pub items: &'a Items,
    pub asked: &'a Asked,
    pub seed: u64,
    pub both_orders: bool,
    pub cache: &'a Path,
    pub out: Option<&'a Path>,
}

pub fn object(about: &About, figures: &Figures) -> String {
    let mut object = json!({
        "judge": about.judge.name(),
        "endpoint": about.judge.address(),
        "seed": about.seed,
        "both_orders": about.both_orders,
        "unanswered": about.items.unanswered,
        "skipped": about.items.skipped,
        "cut": about.items.cut,
        "questions": about.asked.questions,
        "asked": about.asked.made,
        "cache": about.cache,
        "out": about.out,
    });
    if let (Some(all), Ok(Value::Object(figures))) =
        (object.as_object_mut(), serde_json::to_value(figures))
    {
        all.extend(figures);
    }
    format!("{object}\n")
}

pub fn table(about: &About, figures: &Figures) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String, remark: String| {
        let line = format!("{name:<22}{value:>9}  {remark}");
        let _ = writeln!(text, "{}", line.trim_end());
    };
    let none = String::new;
    let place = about
        .judge
        .address()
        .map_or(none(), |place| format!(" at {place}"));
    line("judge", none(), format!("{}{place}", about.judge.name()));
    let orders = if about.both_orders {
        ", both orders"
    } else {
        ""
    };
    line(
        "items",
        grouped(figures.items),
        format!("seed {}{orders}", about.seed),
    );
    if about.items.skipped > 0 {
        let what = "longer than the judge's context, not judged";
        line("skipped", grouped(about.items.skipped), what.into());
    }
    if about.items.cut > 0 {
        let what = "answers cut to the judge's context";
        line("cut", grouped(about.items.cut), what.into());
    }
    line("wins", grouped(figures.wins), none());
    line("losses", grouped(figures.losses), none());
    let inconsistent = match about.both_orders {
        true => format!("{} inconsistent", grouped(figures.inconsistent)),
        false => none(),
    };
    line("ties", grouped(figures.ties), inconsistent);
    line("invalid", grouped(figures.invalid), none());
    line("failed", grouped(figures.failed), none());
    let intervals = match (figures.wilson, figures.bootstrap) {
        (Some(wilson), Some(bootstrap)) => {
            format!("Wilson {}  bootstrap {}", range(wilson), range(bootstrap))
        }
        _ => "more than 2% of the items are invalid or failed".into(),
    };
    line("win rate", percent(figures.win_rate), intervals);
    let position = &figures.position;
    line(
        "position: A",
        percent(position.share_of_a),
        of(position.verdicts, position.wilson),
    );
    line("  win rate as A", percent(position.win_rate_as_a), none());
    line("  win rate as B", percent(position.win_rate_as_b), none());
    let length = &figures.length;
    let mean = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    line(
        "length: longer",
        percent(length.share_of_longer),
        of(length.verdicts, length.wilson),
    );
    line(
        "  win rate, longer",
        percent(length.win_rate_longer),
        none(),
    );
    line(
        "  win rate, shorter",
        percent(length.win_rate_shorter),
        none(),
    );
    line("  win rate, as long", percent(length.win_rate_same), none());
    line("  mean, model", mean(length.model), "characters".into());
    line("  mean, against", mean(length.against), "characters".into());
    let (null, identical) = (&figures.null, &figures.identical);
    let of_asked = |verdicts, asked| format!("{verdicts} verdicts of {asked}");
    line(
        "null: lost",
        percent(null.share_lost),
        of_asked(null.verdicts, null.asked),
    );
    line(
        "identical: A",
        percent(identical.share_of_a),
        of_asked(identical.verdicts, identical.asked),
    );
    line("  ties", percent(identical.share_of_ties), none());
    line(
        "questions",
        grouped(about.asked.questions),
        format!("{} asked now", grouped(about.asked.made)),
    );
    if figures.prompt_tokens + figures.completion_tokens > 0 {
        line(
            "tokens read",
            grouped(figures.prompt_tokens as usize),
            none(),
        );
        line(
            "tokens written",
            grouped(figures.completion_tokens as usize),
            none(),
        );
    }
    let _ = writeln!(text, "replies {}", about.cache.display());
    if let Some(out) = about.out {
        let _ = writeln!(text, "output {}", out.display());
    }
    text
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}%", 100.0 * share))
}

fn range(Interval { low, high }: Interval) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high)
}

fn of(verdicts: usize, interval: Option<Interval>) -> String {
    let interval = interval.map_or(String::new(), |interval| format!("{} ", range(interval)));
    format!("{interval}of {} verdicts", grouped(verdicts))
}

/// The line of an item.
pub fn row(
    item: &Item,
    judged: &Judged,
    calls: &[Call],
    replies: &[Result<Entry, String>],
    grammar: &Grammar,
) -> Value {
    let call = |&number: &usize| {
        let model_is = if calls[number].model_first { "A" } else { "B" };
        match &replies[number] {
            Ok(entry) => json!({
                "model_is": model_is,
                "verdict": grammar.parse(&entry.reply),
                "reply": entry.reply,
            }),
            Err(why) => json!({"model_is": model_is, "failed": why}),
        }
    };
    json!({
        "prompt": item.prompt,
        "outcome": judged.outcome,
        "inconsistent": judged.inconsistent,
        "characters": [item.model.characters(), item.against.characters()],
        "calls": judged.calls.iter().map(call).collect::<Vec<Value>>(),
    })
}
