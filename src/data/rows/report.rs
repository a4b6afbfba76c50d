//! What became of the rows of a dataset: kept, left out and why, cut, and how long they are.
//!
//! Hides the counting and the layout of the report.
//!
//! *Why*: cutting and dropping change what is learned. Whoever trains should see how much of it
//! happened, and where, without having to ask.

use super::invalid::Invalid;
use crate::data::example::Example;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::Range;

/// How many rows, and the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Lines {
    /// The number of rows.
    pub rows: usize,
    /// The line numbers of the first ten, as `file:line` where the rows are of several files.
    pub first: Vec<String>,
    /// What is wrong with the first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fact: String,
}

impl Lines {
    /// The first of them, and whether there are more.
    pub(in crate::data) fn shown(&self) -> String {
        let more = if self.rows > self.first.len() {
            ", ..."
        } else {
            ""
        };
        self.first.join(", ") + more
    }

    pub(in crate::data) fn add(&mut self, line: String) {
        self.rows += 1;
        if self.first.len() < 10 {
            self.first.push(line);
        }
    }

    /// Adds a row with what is wrong with it.
    pub(in crate::data) fn add_unusable(&mut self, line: String, error: &Error) {
        self.add(line);
        if self.rows == 1 {
            self.fact = shortened(error.fact());
        }
    }
}

/// A fact that fits a line: a template may say what it likes, and a row have a hundred columns.
fn shortened(fact: &str) -> String {
    let most = 200;
    match fact.char_indices().nth(most) {
        Some((end, _)) => format!("{} ...", &fact[..end]),
        None => fact.to_owned(),
    }
}

/// Median, 95th percentile (both by nearest rank) and maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Spread {
    /// The median.
    pub median: usize,
    /// The 95th percentile.
    pub p95: usize,
    /// The largest.
    pub max: usize,
}

/// How often there was which length: no more of them than the longest has tokens.
#[derive(Default)]
pub(in crate::data) struct Lengths(BTreeMap<usize, usize>);

impl Lengths {
    pub fn add(&mut self, length: usize) {
        *self.0.entry(length).or_default() += 1;
    }

    /// Zeros where there are none.
    pub fn spread(&self) -> Spread {
        let all: usize = self.0.values().sum();
        let rank = |percent: usize| {
            let rank = (all * percent).div_ceil(100);
            let mut upto = 0;
            let found = self.0.iter().find(|(_, count)| {
                upto += **count;
                upto >= rank
            });
            found.map_or(0, |(length, _)| *length)
        };
        Spread {
            median: rank(50),
            p95: rank(95),
            max: rank(100),
        }
    }
}

/// The lengths of examples.
#[derive(Default)]
pub(in crate::data) struct Tally {
    prompts: Lengths,
    responses: Lengths,
    examples: Lengths,
}

/// What became of the rows of one name in a list of files, where one of them has a weight.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PartCount {
    /// The name with its slice.
    pub path: String,
    /// Its weight.
    pub weight: f64,
    /// Rows.
    pub rows: usize,
    /// Rows that the weight leaves out, without a look at them.
    pub left_out: usize,
    /// Rows that became examples.
    pub kept: usize,
    /// Examples in the dataset: each kept row as often as the weight says.
    pub examples: usize,
}

/// The report of [`Dataset::open`](crate::data::Dataset::open). Token counts are those after cutting.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowReport {
    /// Rows in the files, or in the slices of them.
    pub rows: usize,
    /// Rows that became examples.
    pub kept: usize,
    /// By name, in the order of the list; empty where every weight is 1.
    pub mixture: Vec<PartCount>,
    /// Rows left out, by reason.
    pub invalid: BTreeMap<Invalid, Lines>,
    /// Rows that were kept although both answers are the same.
    pub identical: Lines,
    /// Columns that nothing reads, in the first thousand rows.
    pub unread: Vec<String>,
    /// What is odd about the rows as a whole.
    pub notes: Vec<String>,
    /// Rows of which the prompt or a response was cut.
    pub cut: Lines,
    /// Prompts cut for length.
    pub cut_prompts: usize,
    /// Responses cut for length.
    pub cut_responses: usize,
    /// Responses that do not end in an end token: cut, or drawn up to a length limit.
    pub unfinished_responses: usize,
    /// Tokens of responses that are not the assistant's own: turns of others between its turns.
    pub context_tokens: usize,
    /// Rows where prompt and answer have a token in common, so that an answer was tokenised by
    /// itself.
    pub boundary_merges: usize,
    /// Rows by the special token that stands right behind an answer's content and is not an end token.
    pub other_ends: BTreeMap<String, usize>,
    /// Tokens of a prompt.
    pub prompt_tokens: Spread,
    /// Tokens of a response.
    pub response_tokens: Spread,
    /// Tokens of an example: its prompt once, and all its responses.
    pub example_tokens: Spread,
}

impl RowReport {
    /// Rows that the weights of their files leave out.
    pub fn left_out_by_weight(&self) -> usize {
        self.mixture.iter().map(|part| part.left_out).sum()
    }

    fn show_mixture(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.mixture.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "{:<22}{:>10}",
            "left out by weight",
            self.left_out_by_weight()
        )?;
        let examples: usize = self.mixture.iter().map(|part| part.examples).sum();
        writeln!(f, "{:<22}{examples:>10}", "examples")?;
        for PartCount {
            path,
            weight,
            rows,
            kept,
            examples,
            ..
        } in &self.mixture
        {
            writeln!(
                f,
                "  {path} x {weight}: {rows} rows, {kept} kept, {examples} examples"
            )?;
        }
        Ok(())
    }

    pub(in crate::data) fn count(&mut self, example: &Example, tally: &mut Tally) {
        self.kept += 1;
        let mut whole = example.prompt.len();
        tally.prompts.add(whole);
        for response in &example.responses {
            self.context_tokens += response.context.iter().map(Range::len).sum::<usize>();
            tally.responses.add(response.ids.len());
            whole += response.ids.len();
        }
        tally.examples.add(whole);
    }

    pub(in crate::data) fn measure(&mut self, tally: &Tally) {
        self.prompt_tokens = tally.prompts.spread();
        self.response_tokens = tally.responses.spread();
        self.example_tokens = tally.examples.spread();
    }
}

impl Display for RowReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{:<22}{:>10}", "rows", self.rows)?;
        writeln!(f, "{:<22}{:>10}", "kept", self.kept)?;
        self.show_mixture(f)?;
        for (reason, lines) in &self.invalid {
            let (rows, shown) = (lines.rows, lines.shown());
            write!(f, "{:<22}{rows:>10}  {reason} (lines {shown})", "left out")?;
            // Most reasons say all there is.
            match lines.fact.as_str() {
                "" => writeln!(f)?,
                fact if fact == reason.to_string() => writeln!(f)?,
                fact => writeln!(f, ": {fact}")?,
            }
        }
        if self.identical.rows > 0 {
            let (rows, shown) = (self.identical.rows, self.identical.shown());
            let what = "both answers are the same (lines";
            writeln!(f, "{:<22}{rows:>10}  {what} {shown})", "kept although")?;
        }
        if !self.unread.is_empty() {
            writeln!(f, "{:<22}{}", "columns not read", self.unread.join(", "))?;
        }
        for note in &self.notes {
            writeln!(f, "{:<22}{note}", "note")?;
        }
        for (name, count) in [
            ("cut prompts", self.cut_prompts),
            ("cut responses", self.cut_responses),
            ("unfinished responses", self.unfinished_responses),
            ("boundary merges", self.boundary_merges),
        ] {
            writeln!(f, "{name:<22}{count:>10}")?;
        }
        for (token, rows) in &self.other_ends {
            writeln!(
                f,
                "{:<22}{rows:>10}  {token} is not an end token of the model: to end with it, set \
                 data.eos_token = {token:?}",
                "end in another token"
            )?;
        }
        if self.context_tokens > 0 {
            writeln!(f, "{:<22}{:>10}", "context tokens", self.context_tokens)?;
        }
        writeln!(
            f,
            "{:<22}{:>10}{:>8}{:>8}",
            "tokens", "median", "p95", "max"
        )?;
        for (name, spread) in [
            ("  prompt", self.prompt_tokens),
            ("  response", self.response_tokens),
            ("  example", self.example_tokens),
        ] {
            let Spread { median, p95, max } = spread;
            writeln!(f, "{name:<22}{median:>10}{p95:>8}{max:>8}")?;
        }
        Ok(())
    }
}
