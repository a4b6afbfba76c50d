//! What decides how rows become examples: their format, how texts become tokens, and how long an
//! example may be.
//!
//! Hides the defaults and the ranges.
//!
//! *Why*: training reads all of it, sampling the part that is about prompts, a judge the tokens
//! alone. Each takes the part that it reads, so there is no key that somebody has to make up.

use crate::data::format::{Columns, Format, Pairing, TruncationMode};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How the rows of one format become examples.
#[derive(Debug, Clone, PartialEq)]
pub struct RowConfig {
    /// How a row is laid out.
    pub format: &'static Format,
    /// Where the columns that the format reads stand.
    pub columns: Columns,
    /// What happens to rows that cannot be used for what they say.
    pub on_invalid: OnInvalid,
    /// The largest part of a hundred or more rows that may be left out for what they say.
    pub max_invalid_fraction: f64,
    /// Which of a row's ranked answers are pairs.
    pub pairing: Pairing,
    /// What `score_chosen` and `score_rejected` are for.
    pub scores: Scores,
    /// How texts become tokens.
    pub tokens: TokenizeConfig,
    /// How long an example may be.
    pub length: LengthConfig,
    /// Seed of the choice of rows of files whose weight has a fraction.
    pub seed: u64,
}

/// How the prompts of rows become tokens, for sampling.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptConfig {
    /// How a row is laid out.
    pub format: &'static Format,
    /// Where the columns that the format reads stand.
    pub columns: Columns,
    /// What happens to rows without a prompt.
    pub on_invalid: OnInvalid,
    /// The largest part of a hundred or more rows that may be without a prompt.
    pub max_invalid_fraction: f64,
    /// How texts become tokens.
    pub tokens: TokenizeConfig,
    /// The most tokens that are left of a prompt; `None` leaves all.
    pub max_prompt_length: Option<usize>,
    /// Which part of a prompt that is cut stays; the format decides where it is not set.
    pub truncation_mode: Option<TruncationMode>,
}

/// How conversations become texts, and where answers end: what the model has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChatConfig {
    /// The chat template: a file, or the name of one of the model's or of a built-in one.
    pub template: Option<String>,
    /// Variables of the template by name.
    pub variables: Map<String, Value>,
    /// The token that is appended to an answer, in front of the model's own end tokens.
    pub eos_token: Option<TokenName>,
    /// More end tokens.
    pub eot_tokens: Vec<TokenName>,
}

/// A token of the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "a token is its text or its id")]
pub enum TokenName {
    /// Its id.
    Id(u32),
    /// Its text.
    Text(String),
}

/// How texts become tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenizeConfig {
    /// Whether a response is tokenised together with its prompt.
    pub tokenize: Tokenize,
    /// Whether the tokenizer's begin-of-sequence tokens go in front of the prompt.
    pub add_bos: AddBos,
    /// Whether strings go through the model's chat template too: a prompt as a message of the user,
    /// an answer as one of the assistant. Lists of messages always do.
    pub apply_chat_template: bool,
    /// Which of the assistant's turns in a conversation are learned.
    pub assistant_turns: AssistantTurns,
    /// The chat template and the end tokens.
    pub chat: ChatConfig,
}

/// How many tokens an example may have, and what is cut of one that has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthConfig {
    /// The most tokens of a prompt together with any one of its responses.
    pub max_length: usize,
    /// The most tokens that are left of a prompt where an example is too long.
    pub max_prompt_length: usize,
    /// Which part of a prompt that is cut stays; the format decides where it is not set.
    pub truncation_mode: Option<TruncationMode>,
    /// Whether responses that are too long are cut to `max_length - max_prompt_length` even where a
    /// short prompt leaves more room, as the official DPO repository does.
    pub official_truncation: bool,
}

/// How a response's token ids come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenize {
    /// What follows the prompt's ids in the tokenisation of prompt and response.
    #[default]
    Joint,
    /// The tokenisation of the response alone, as in the official DPO repository.
    Separate,
}

/// Where begin-of-sequence tokens come from; `"auto"` or `false` in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "AutoOrFalse", into = "AutoOrFalse")]
pub enum AddBos {
    /// The tokenizer's own post-processor says which; they are put in front once.
    #[default]
    Auto,
    /// Nothing is put in front, as in the official DPO repository.
    Never,
}

/// Which turns of a conversation without a prompt of its own are the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AssistantTurns {
    /// Each of the assistant's; what the others say between them is context.
    #[default]
    All,
    /// The last; everything before it is the prompt.
    Last,
}

/// What the scores of a pair's answers are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// They are not read.
    #[default]
    Ignore,
    /// A row whose chosen answer does not have the higher score cannot be used.
    Check,
    /// The soft label is p(chosen > rejected) = sigma(score_chosen - score_rejected).
    BradleyTerry,
}

/// What happens to a row that is well-formed but cannot be used, e.g. for an empty answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// It is left out and counted.
    #[default]
    Skip,
    /// It is an error.
    Error,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged, expecting = "`add_bos` is \"auto\" or false")]
enum AutoOrFalse {
    Word(String),
    Flag(bool),
}

impl TryFrom<AutoOrFalse> for AddBos {
    type Error = String;

    fn try_from(value: AutoOrFalse) -> std::result::Result<Self, String> {
        match value {
            AutoOrFalse::Word(word) if word == "auto" => Ok(Self::Auto),
            AutoOrFalse::Flag(false) => Ok(Self::Never),
            AutoOrFalse::Word(word) => {
                Err(format!("`add_bos` is `{word}`; valid: \"auto\" or false"))
            }
            AutoOrFalse::Flag(true) => Err("`add_bos` is true; valid: \"auto\" or false".into()),
        }
    }
}

impl From<AddBos> for AutoOrFalse {
    fn from(value: AddBos) -> Self {
        match value {
            AddBos::Auto => Self::Word("auto".into()),
            AddBos::Never => Self::Flag(false),
        }
    }
}

impl Default for LengthConfig {
    fn default() -> Self {
        Self {
            max_length: 512,
            max_prompt_length: 256,
            truncation_mode: None,
            official_truncation: false,
        }
    }
}

impl LengthConfig {
    /// Sets limits in place of the defaults. The default for prompts belongs to the default for
    /// examples: it is at most half of another one.
    #[must_use]
    pub fn with_limits(mut self, max_length: Option<usize>, max_prompt: Option<usize>) -> Self {
        if let Some(length) = max_length {
            self.max_length = length;
            self.max_prompt_length = self.max_prompt_length.min(length / 2);
        }
        self.max_prompt_length = max_prompt.unwrap_or(self.max_prompt_length);
        self
    }

    /// Lowers the limits to what a model with so many positions can hold.
    #[must_use]
    pub fn within(mut self, positions: usize) -> Self {
        if self.max_length > positions {
            self.max_length = positions;
            self.max_prompt_length = self.max_prompt_length.min(positions / 2);
        }
        self
    }

    fn validate(&self) -> Result<()> {
        let (length, prompt) = (self.max_length, self.max_prompt_length);
        if prompt == 0 {
            return Err(no_prompt());
        }
        if prompt >= length {
            return Err(Error::input(format!(
                "max_prompt_length {prompt} leaves no room for an answer within max_length {length}"
            ))
            .hint("max_prompt_length must be smaller than max_length")
            .at_keys(&["max_prompt_length", "max_length"]));
        }
        Ok(())
    }
}

impl ChatConfig {
    /// What transformers itself sets.
    const SET: [&str; 2] = ["messages", "add_generation_prompt"];

    /// Whether a model's files stay as they are.
    pub fn leaves_files(&self) -> bool {
        self.template.is_none() && self.eos_token.is_none() && self.eot_tokens.is_empty()
    }

    fn validate(&self) -> Result<()> {
        match Self::SET
            .iter()
            .find(|name| self.variables.contains_key(**name))
        {
            Some(name) => Err(Error::input(format!("chat_template_kwargs sets `{name}`"))
                .hint("it is set for every text; leave it out")
                .at_key("chat_template_kwargs")),
            None => Ok(()),
        }
    }
}

impl TokenizeConfig {
    /// Refuses what rows of this format have no use for.
    fn validate(&self, format: &Format) -> Result<()> {
        self.chat.validate()?;
        let name = format.name;
        let set = [
            ("chat_template", self.chat.template.is_some()),
            ("chat_template_kwargs", !self.chat.variables.is_empty()),
        ];
        if let Some((key, _)) = set.iter().find(|(_, set)| *set && format.writes_turns) {
            return Err(Error::input(format!("{key} for format `{name}`"))
                .hint(
                    "its transcripts have turns of their own; use another format, or leave it out",
                )
                .at_keys(&[key, "format"]));
        }
        if self.apply_chat_template && format.writes_turns {
            return Err(
                Error::input(format!("apply_chat_template for format `{name}`"))
                    .hint("its transcripts have turns of their own; use another format, or leave it out")
                    .at_keys(&["apply_chat_template", "format"]),
            );
        }
        if self.assistant_turns == AssistantTurns::Last && !format.splits_turns {
            return Err(Error::input(format!("assistant_turns for format `{name}`"))
                .hint("only the conversations of format `sft` are split by turns: leave it out")
                .at_keys(&["assistant_turns", "format"]));
        }
        Ok(())
    }
}

impl RowConfig {
    /// The defaults, for rows of this format.
    pub fn new(format: &'static Format) -> Self {
        Self {
            format,
            columns: Columns::default(),
            on_invalid: OnInvalid::default(),
            max_invalid_fraction: MAX_INVALID_FRACTION,
            pairing: Pairing::default(),
            scores: Scores::default(),
            tokens: TokenizeConfig::default(),
            length: LengthConfig::default(),
            seed: 0,
        }
    }

    /// How the prompts of these rows become tokens.
    pub fn prompts(&self) -> PromptConfig {
        PromptConfig {
            format: self.format,
            columns: self.columns.clone(),
            on_invalid: self.on_invalid,
            max_invalid_fraction: self.max_invalid_fraction,
            tokens: self.tokens.clone(),
            max_prompt_length: Some(self.length.max_prompt_length),
            truncation_mode: self.length.truncation_mode,
        }
    }

    /// Checks the ranges, and how they go together.
    ///
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<()> {
        self.length.validate()?;
        check_fraction(self.max_invalid_fraction)?;
        self.check(self.format)
    }

    /// Refuses what rows of this format have no use for.
    pub(in crate::data) fn check(&self, format: &Format) -> Result<()> {
        format.check_columns(&self.columns)?;
        if self.pairing != Pairing::default() && !format.is_ranked() {
            let what = format!("pairing for format `{}`", format.name);
            return Err(Error::input(what)
                .hint("only rankings are paired: leave it out")
                .at_keys(&["pairing", "format"]));
        }
        self.tokens.validate(format)
    }
}

impl PromptConfig {
    /// The defaults, for rows of this format: no prompt is cut.
    pub fn new(format: &'static Format) -> Self {
        Self {
            max_prompt_length: None,
            ..RowConfig::new(format).prompts()
        }
    }

    /// Checks the ranges, and how they go together.
    ///
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<()> {
        if self.max_prompt_length == Some(0) {
            return Err(no_prompt());
        }
        check_fraction(self.max_invalid_fraction)?;
        self.check(self.format)
    }

    /// Refuses what rows of this format have no use for.
    pub(in crate::data) fn check(&self, format: &Format) -> Result<()> {
        format.check_columns(&self.columns)?;
        self.tokens.validate(format)
    }
}

/// The default of `max_invalid_fraction`.
pub const MAX_INVALID_FRACTION: f64 = 0.1;

fn check_fraction(fraction: f64) -> Result<()> {
    match (0.0..=1.0).contains(&fraction) {
        true => Ok(()),
        false => Err(Error::must_be(
            "max_invalid_fraction",
            "in [0, 1]",
            fraction,
        )),
    }
}

fn no_prompt() -> Error {
    Error::must_be("max_prompt_length", ">= 1", 0)
}
