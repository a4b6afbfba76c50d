//! The `[data]` section of a run: what the user may decide about data.
//!
//! Hides the defaults and the ranges of the keys.
//!
//! *Why*: parsing touches no disk, so a configuration can be checked, printed and compared
//! anywhere; the files are opened by [`Dataset::open`](super::Dataset::open).

use super::Files;
use super::format::{self, Format, TruncationMode};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The `[data]` section.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// How a row is laid out: a name in [`format::FORMATS`].
    #[serde(with = "format::by_name")]
    pub format: &'static Format,
    /// The training rows.
    pub train: Files,
    /// The evaluation rows, in the same format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Files>,
    /// The most tokens of a prompt together with any one of its responses.
    #[serde(default = "default_max_length")]
    pub max_length: usize,
    /// The most tokens that are left of a prompt where an example is too long.
    #[serde(default = "default_max_prompt_length")]
    pub max_prompt_length: usize,
    /// Which part of a prompt that is cut stays; the format decides where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncation_mode: Option<TruncationMode>,
    /// Whether a response is tokenised together with its prompt.
    #[serde(default)]
    pub tokenize: Tokenize,
    /// Whether the tokenizer's begin-of-sequence tokens go in front of the prompt.
    #[serde(default)]
    pub add_bos: AddBos,
    /// What happens to rows that cannot be used for what they say.
    #[serde(default)]
    pub on_invalid: OnInvalid,
    /// Whether strings go through the model's chat template too: a prompt as a message of the user,
    /// an answer as one of the assistant. Lists of messages always do.
    #[serde(default)]
    pub apply_chat_template: bool,
    /// Which of the assistant's turns in a conversation are learned.
    #[serde(default)]
    pub assistant_turns: AssistantTurns,
    /// What `score_chosen` and `score_rejected` are for.
    #[serde(default)]
    pub scores: Scores,
    /// A file of responses drawn from the reference, joined by prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<Files>,
    /// Prompts that come without a preference: the sampler draws their answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<Files>,
    /// Rows of `unlabelled` per row of `train` in each batch.
    #[serde(default = "default_unlabelled_ratio")]
    pub unlabelled_ratio: f64,
    /// A file of reference log-probs that replaces the scoring pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_log_probs: Option<PathBuf>,
    /// Whether responses that are too long are cut to `max_length - max_prompt_length` even where a
    /// short prompt leaves more room, as the official DPO repository does.
    #[serde(default)]
    pub official_truncation: bool,
    /// Whether each epoch goes through the rows in an order of its own.
    #[serde(default = "default_shuffle")]
    pub shuffle: bool,
}

/// How a response's token ids come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenize {
    /// What follows the prompt's ids in the tokenisation of prompt and response.
    #[default]
    Joint,
    /// The tokenisation of the response by itself, as in the official DPO repository.
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

fn default_max_length() -> usize {
    512
}

fn default_max_prompt_length() -> usize {
    256
}

fn default_unlabelled_ratio() -> f64 {
    1.0
}

fn default_shuffle() -> bool {
    true
}

impl DataConfig {
    /// The defaults, for rows laid out as `format` in the file `train`.
    pub fn new(format: &'static Format, train: impl Into<Files>) -> Self {
        Self {
            format,
            train: train.into(),
            eval: None,
            max_length: default_max_length(),
            max_prompt_length: default_max_prompt_length(),
            truncation_mode: None,
            tokenize: Tokenize::default(),
            add_bos: AddBos::default(),
            on_invalid: OnInvalid::default(),
            apply_chat_template: false,
            assistant_turns: AssistantTurns::default(),
            scores: Scores::default(),
            samples: None,
            unlabelled: None,
            unlabelled_ratio: default_unlabelled_ratio(),
            reference_log_probs: None,
            official_truncation: false,
            shuffle: default_shuffle(),
        }
    }

    /// Checks the ranges of the keys and how they go together.
    pub fn validate(&self) -> Result<()> {
        let (length, prompt) = (self.max_length, self.max_prompt_length);
        if prompt == 0 {
            return Err(Error::must_be("max_prompt_length", ">= 1", prompt));
        }
        if prompt >= length {
            return Err(Error::input(format!(
                "max_prompt_length {prompt} leaves no room for an answer within max_length {length}"
            ))
            .hint("max_prompt_length must be smaller than max_length")
            .at_keys(&["max_prompt_length", "max_length"]));
        }
        if self.apply_chat_template && self.format.name == "hh" {
            return Err(Error::input("apply_chat_template for format `hh`")
                .hint(
                    "its transcripts have turns of their own; use another format, or leave it out",
                )
                .at_keys(&["apply_chat_template", "format"]));
        }
        if self.assistant_turns == AssistantTurns::Last && self.format.name != "sft" {
            let format = self.format.name;
            return Err(
                Error::input(format!("assistant_turns for format `{format}`"))
                    .hint("only the conversations of format `sft` are split by turns: leave it out")
                    .at_keys(&["assistant_turns", "format"]),
            );
        }
        let ratio = self.unlabelled_ratio;
        if !(ratio > 0.0 && ratio.is_finite()) {
            return Err(Error::must_be("unlabelled_ratio", "> 0 and finite", ratio)
                .hint("it is the number of unlabelled rows per labelled row"));
        }
        if self.unlabelled.is_none() && ratio != default_unlabelled_ratio() {
            return Err(Error::input(format!(
                "unlabelled_ratio is {ratio} without unlabelled rows"
            ))
            .hint("name their files in data.unlabelled, or leave the key out")
            .at_key("unlabelled_ratio"));
        }
        self.check_paths()
    }

    fn check_paths(&self) -> Result<()> {
        let is_empty = |path: &Path| path.as_os_str().is_empty();
        for (key, files) in [
            ("train", Some(&self.train)),
            ("eval", self.eval.as_ref()),
            ("samples", self.samples.as_ref()),
            ("unlabelled", self.unlabelled.as_ref()),
        ] {
            if files.is_some_and(|files| files.paths().any(is_empty)) {
                return Err(Error::input("the path is empty").at_key(key));
            }
        }
        match &self.reference_log_probs {
            Some(path) if is_empty(path) => {
                Err(Error::input("the path is empty").at_key("reference_log_probs"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the samples are to be drawn by the run itself, if its loss needs any: `samples =
    /// "auto"`.
    pub fn draws_samples(&self) -> bool {
        let files = self.samples.as_ref();
        files.is_some_and(|files| files.to_string() == "auto")
    }

    /// The truncation mode: what is set, else the end of a conversation stays, else what suits the
    /// format.
    pub fn truncation(&self, is_chat: bool) -> TruncationMode {
        let by_format = match is_chat {
            true => TruncationMode::KeepEnd,
            false => self.format.truncation,
        };
        self.truncation_mode.unwrap_or(by_format)
    }
}
