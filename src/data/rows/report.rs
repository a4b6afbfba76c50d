//! What became of the rows of a dataset: kept, left out and why, cut, and how long they are.
//!
//! Hides the counting and the layout of the report.
//!
//! *Why*: cutting and dropping change what is learned. Whoever trains should see how much of it
//! happened, and where, without having to ask.

use crate::data::example::Example;
use crate::error::{Error, Kind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::Range;

/// Why a row cannot be used: what it is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invalid {
    /// The line or item is not a JSON object.
    NotAnObject,
    /// A column that the format reads is not there.
    MissingColumn,
    /// A column that the format reads is null.
    NullColumn,
    /// A column is not what the format reads.
    Malformed,
    /// A conversation is an empty list.
    NoMessages,
    /// An item of a conversation is not an object with `role` and `content`.
    NotAMessage,
    /// A message has a role that templates do not know.
    UnknownRole,
    /// A message has no content, or null.
    NoContent,
    /// The content of a message is a number, an image or another thing than text.
    ContentIsNoText,
    /// A conversation has no message of the assistant.
    NoAssistantMessage,
    /// A conversation begins with the assistant.
    NoUserMessage,
    /// An answer begins with a message that is not the assistant's.
    NotTheAssistants,
    /// A conversation ends with a message that is not the assistant's.
    EndsWithUser,
    /// The rejected transcript or conversation does not begin with the prompt of the chosen one.
    PromptDiffers,
    /// HH: the chosen transcript has no `\n\nAssistant:`.
    NoAssistantTurn,
    /// An answer is empty or only white space.
    EmptyAnswer,
    /// AlpacaEval: the annotation has no preference.
    NoPreference,
    /// A comparison is a tie.
    NoWinner,
    /// Fewer than two of the answers have a rank.
    FewAnswers,
    /// The chosen answer has a lower score than the rejected one.
    ScoresDisagree,
    /// The two answers have the same score.
    Tie,
    /// The only answer is a rejected one, and the loss reads chosen ones.
    NothingChosen,
    /// The sample file has no response to the prompt.
    NoSample,
    /// An answer has no token with a log-prob: after an empty prompt the first one has none.
    NothingToScore,
}

impl Invalid {
    /// Whether the row is left out for what the user chose, and nothing is wrong with it.
    pub(in crate::data) fn is_choice(self) -> bool {
        matches!(
            self,
            Self::NoPreference
                | Self::NoWinner
                | Self::FewAnswers
                | Self::ScoresDisagree
                | Self::Tie
                | Self::NothingChosen
                | Self::NoSample
        )
    }

    /// Whether the columns are to blame.
    pub(in crate::data) fn is_of_columns(self) -> bool {
        matches!(
            self,
            Self::MissingColumn | Self::NullColumn | Self::Malformed
        )
    }

    /// Its name in the record of a run.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAnObject => "not_an_object",
            Self::MissingColumn => "missing_column",
            Self::NullColumn => "null_column",
            Self::Malformed => "malformed",
            Self::NoMessages => "no_messages",
            Self::NotAMessage => "not_a_message",
            Self::UnknownRole => "unknown_role",
            Self::NoContent => "no_content",
            Self::ContentIsNoText => "content_is_no_text",
            Self::NoAssistantMessage => "no_assistant_message",
            Self::NoUserMessage => "no_user_message",
            Self::NotTheAssistants => "not_the_assistants",
            Self::EndsWithUser => "ends_with_user",
            Self::PromptDiffers => "prompt_differs",
            Self::NoAssistantTurn => "no_assistant_turn",
            Self::EmptyAnswer => "empty_answer",
            Self::NoPreference => "no_preference",
            Self::NoWinner => "no_winner",
            Self::FewAnswers => "few_answers",
            Self::ScoresDisagree => "scores_disagree",
            Self::Tie => "tie",
            Self::NothingChosen => "nothing_chosen",
            Self::NoSample => "no_sample",
            Self::NothingToScore => "nothing_to_score",
        }
    }
}

/// Why a row does not become an example.
#[derive(Debug, Clone, PartialEq)]
pub enum RowError {
    /// The row is left out and counted, or refused with this error, as `on_invalid` says.
    Unusable(Invalid, Error),
    /// What no other row would change: a failure of the system, a model without a chat template.
    Fatal(Error),
}

/// An input error is the row's, under [`Invalid::Malformed`]; any other is fatal.
impl From<Error> for RowError {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::Input => Self::Unusable(Invalid::Malformed, error),
            _ => Self::Fatal(error),
        }
    }
}

impl From<Invalid> for RowError {
    fn from(reason: Invalid) -> Self {
        Self::Unusable(reason, Error::input(reason.to_string()))
    }
}

impl RowError {
    /// Names the place of the row.
    #[must_use]
    pub fn at(self, place: impl Display) -> Self {
        match self {
            Self::Unusable(reason, error) => Self::Unusable(reason, error.at(place)),
            Self::Fatal(error) => Self::Fatal(error.at(place)),
        }
    }

    /// Names the place of the row where the error names none.
    #[must_use]
    pub fn placed(self, place: impl Display) -> Self {
        let has_place = match &self {
            Self::Unusable(_, error) | Self::Fatal(error) => !error.places().is_empty(),
        };
        if has_place { self } else { self.at(place) }
    }

    /// The error, whatever became of the row.
    pub fn into_error(self) -> Error {
        match self {
            Self::Unusable(_, error) | Self::Fatal(error) => error,
        }
    }
}

impl Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "not a JSON object",
            Self::MissingColumn => "a column is missing",
            Self::NullColumn => "a column is null",
            Self::Malformed => "a column is not what the format reads",
            Self::NoMessages => "a conversation is an empty list",
            Self::NotAMessage => "a message is not an object with `role` and `content`",
            Self::UnknownRole => "a message has an unknown role",
            Self::NoContent => "a message has no content",
            Self::ContentIsNoText => "the content of a message is not text",
            Self::NoAssistantMessage => "the conversation has no message of the assistant",
            Self::NoUserMessage => "the conversation begins with the assistant",
            Self::NotTheAssistants => "an answer begins with a message that is not the assistant's",
            Self::EndsWithUser => {
                "the conversation ends with a message that is not the assistant's"
            }
            Self::PromptDiffers => "the two answers have different prompts",
            Self::NoAssistantTurn => "the transcript has no `\\n\\nAssistant:`",
            Self::EmptyAnswer => "an answer is empty or only white space",
            Self::NoPreference => "the annotation has no preference",
            Self::NoWinner => "neither answer won",
            Self::FewAnswers => "fewer than two of the answers have a rank",
            Self::ScoresDisagree => "the chosen answer has a lower score than the rejected one",
            Self::Tie => "the two answers have the same score",
            Self::NothingChosen => {
                "the only answer is a rejected one, which the loss does not read"
            }
            Self::NoSample => "the sample file has no response to the prompt",
            Self::NothingToScore => "an answer has no token that could be scored",
        })
    }
}

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
    /// Counts a row by how the report names it.
    pub(in crate::data) fn add(&mut self, name: String) {
        self.rows += 1;
        if self.first.len() < 10 {
            self.first.push(name);
        }
    }

    /// The first of them, and whether there are more.
    pub(in crate::data) fn shown(&self) -> String {
        let more = if self.rows > self.first.len() {
            ", ..."
        } else {
            ""
        };
        self.first.join(", ") + more
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
struct Lengths(BTreeMap<usize, usize>);

impl Lengths {
    fn add(&mut self, length: usize) {
        *self.0.entry(length).or_default() += 1;
    }

    /// Zeros where there are none.
    fn spread(&self) -> Spread {
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

/// The report of [`Dataset::open`](crate::data::Dataset::open). Token counts are those after cutting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowReport {
    /// Rows in the files, or in the slices of them.
    pub rows: usize,
    /// Rows that became examples.
    pub kept: usize,
    /// Rows left out, by reason.
    pub invalid: BTreeMap<Invalid, Lines>,
    /// Rows that were kept although both answers are the same.
    pub identical: Lines,
    /// Columns that nothing reads, in the first thousand rows.
    pub unread: Vec<String>,
    /// What is odd about the rows as a whole.
    pub notes: Vec<String>,
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
    /// Tokens of a prompt.
    pub prompt_tokens: Spread,
    /// Tokens of a response.
    pub response_tokens: Spread,
    /// Tokens of an example: its prompt once, and all its responses.
    pub example_tokens: Spread,
}

impl RowReport {
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
