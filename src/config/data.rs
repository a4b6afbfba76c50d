//! `[data]`: the rows of a run.
//!
//! Hides that the section is one flat table, whoever reads which part of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::prompt_source::PromptSource;
use crate::data::format::{Columns, Format, Pairing, by_name};
use crate::data::{
    AddBos, AssistantTurns, ChatConfig, Files, LengthConfig, MAX_INVALID_FRACTION, OnInvalid,
    PromptConfig, RowConfig, Scores, TokenName, Tokenize, TokenizeConfig, TruncationMode,
};
use crate::error::{Error, Result};

/// `[data]` of a training run.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(from = "DataSection", into = "DataSection")]
pub struct PreferenceData {
    /// How rows become examples.
    pub rows: RowConfig,
    /// The training rows.
    pub train: Files,
    /// The evaluation rows, in the same format.
    pub eval: Option<Files>,
    /// Where responses drawn from the reference come from; they are joined by prompt.
    pub samples: Option<SampleSource>,
    /// Prompts that come without a preference, in rows of any format: the sampler draws their answers.
    pub unlabelled: Option<Files>,
    /// Rows of `unlabelled` per row of `train` in each batch.
    pub unlabelled_ratio: f64,
    /// A file of reference log-probs that replaces the scoring pass.
    pub reference_log_probs: Option<PathBuf>,
    /// Whether each epoch goes through the rows in an order of its own.
    pub shuffle: bool,
}

impl PreferenceData {
    /// The keys that may change when a run resumes: its weights do not depend on them, or a content hash
    /// stands for them in `run.json`.
    pub const FREE: &[&str] = &[
        "eval",
        "reference_log_probs",
        "samples",
        "train",
        "unlabelled",
    ];

    /// All files of rows and of samples that it names.
    pub fn files(&self) -> impl Iterator<Item = &Files> {
        let samples = self.samples.iter().filter_map(|samples| match samples {
            SampleSource::Files(files) => Some(files),
            SampleSource::Auto => None,
        });
        let rows = [&self.train].into_iter().chain(&self.eval);
        rows.chain(&self.unlabelled).chain(samples)
    }
}

/// Where the samples of a run come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Files", into = "Files")]
pub enum SampleSource {
    /// `"auto"`: the run draws them itself, if its loss reads any.
    Auto,
    /// Files of `expo sample`.
    Files(Files),
}

impl From<Files> for SampleSource {
    fn from(files: Files) -> Self {
        match files.to_string() == "auto" {
            true => Self::Auto,
            false => Self::Files(files),
        }
    }
}

impl From<SampleSource> for Files {
    fn from(source: SampleSource) -> Self {
        match source {
            SampleSource::Auto => PathBuf::from("auto").into(),
            SampleSource::Files(files) => files,
        }
    }
}

/// The keys of `[data]`, of training and of sampling.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataSection {
    #[serde(with = "by_name", default = "default_format")]
    format: &'static Format,
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    columns: Columns,
    train: Files,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eval: Option<Files>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_prompt_length: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    truncation_mode: Option<TruncationMode>,
    #[serde(default)]
    tokenize: Tokenize,
    #[serde(default)]
    add_bos: AddBos,
    #[serde(default)]
    on_invalid: OnInvalid,
    #[serde(default = "default_max_invalid_fraction")]
    max_invalid_fraction: f64,
    #[serde(default)]
    apply_chat_template: bool,
    #[serde(default)]
    assistant_turns: AssistantTurns,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chat_template: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    chat_template_kwargs: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eos_token: Option<TokenName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    eot_tokens: Vec<TokenName>,
    #[serde(default)]
    pairing: Pairing,
    #[serde(default)]
    scores: Scores,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    samples: Option<SampleSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unlabelled: Option<Files>,
    #[serde(default = "default_unlabelled_ratio")]
    unlabelled_ratio: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference_log_probs: Option<PathBuf>,
    #[serde(default)]
    official_truncation: bool,
    #[serde(default = "default_shuffle")]
    shuffle: bool,
}

/// The limits of an example and of its prompt. A default yields to the other limit: that of prompts to
/// half of a `max_length` that leaves no room beside it, that of examples to twice a
/// `max_prompt_length` that it has no room for.
fn limits(max_length: Option<usize>, max_prompt_length: Option<usize>) -> (usize, usize) {
    let default = LengthConfig::default();
    match (max_length, max_prompt_length) {
        (Some(length), Some(prompt)) => (length, prompt),
        (Some(length), None) if length > default.max_prompt_length => {
            (length, default.max_prompt_length)
        }
        (Some(length), None) => (length, (length / 2).max(1)),
        (None, Some(prompt)) if prompt < default.max_length => (default.max_length, prompt),
        (None, Some(prompt)) => (prompt.saturating_mul(2), prompt),
        (None, None) => (default.max_length, default.max_prompt_length),
    }
}

fn default_unlabelled_ratio() -> f64 {
    1.0
}

fn default_format() -> &'static Format {
    Format::GUESSED
}

fn default_max_invalid_fraction() -> f64 {
    MAX_INVALID_FRACTION
}

fn default_shuffle() -> bool {
    true
}

impl From<DataSection> for PreferenceData {
    fn from(keys: DataSection) -> Self {
        let (max_length, max_prompt_length) = limits(keys.max_length, keys.max_prompt_length);
        Self {
            rows: RowConfig {
                format: keys.format,
                columns: keys.columns,
                on_invalid: keys.on_invalid,
                max_invalid_fraction: keys.max_invalid_fraction,
                pairing: keys.pairing,
                scores: keys.scores,
                tokens: TokenizeConfig {
                    tokenize: keys.tokenize,
                    add_bos: keys.add_bos,
                    apply_chat_template: keys.apply_chat_template,
                    assistant_turns: keys.assistant_turns,
                    chat: ChatConfig {
                        template: keys.chat_template,
                        variables: keys.chat_template_kwargs,
                        eos_token: keys.eos_token,
                        eot_tokens: keys.eot_tokens,
                    },
                },
                length: LengthConfig {
                    max_length,
                    max_prompt_length,
                    truncation_mode: keys.truncation_mode,
                    official_truncation: keys.official_truncation,
                },
                ..RowConfig::new(keys.format)
            },
            train: keys.train,
            eval: keys.eval,
            samples: keys.samples,
            unlabelled: keys.unlabelled,
            unlabelled_ratio: keys.unlabelled_ratio,
            reference_log_probs: keys.reference_log_probs,
            shuffle: keys.shuffle,
        }
    }
}

impl From<PreferenceData> for DataSection {
    fn from(data: PreferenceData) -> Self {
        let RowConfig {
            format,
            columns,
            on_invalid,
            max_invalid_fraction,
            pairing,
            scores,
            tokens,
            length,
            seed: _,
        } = data.rows;
        Self {
            format,
            columns,
            train: data.train,
            eval: data.eval,
            max_length: Some(length.max_length),
            max_prompt_length: Some(length.max_prompt_length),
            truncation_mode: length.truncation_mode,
            tokenize: tokens.tokenize,
            add_bos: tokens.add_bos,
            on_invalid,
            max_invalid_fraction,
            apply_chat_template: tokens.apply_chat_template,
            assistant_turns: tokens.assistant_turns,
            pairing,
            chat_template: tokens.chat.template,
            chat_template_kwargs: tokens.chat.variables,
            eos_token: tokens.chat.eos_token,
            eot_tokens: tokens.chat.eot_tokens,
            scores,
            samples: data.samples,
            unlabelled: data.unlabelled,
            unlabelled_ratio: data.unlabelled_ratio,
            reference_log_probs: data.reference_log_probs,
            official_truncation: length.official_truncation,
            shuffle: data.shuffle,
        }
    }
}

impl From<PreferenceData> for PromptSource {
    fn from(data: PreferenceData) -> Self {
        Self {
            rows: data.rows.prompts(),
            train: data.train,
            eval: data.eval,
            unlabelled: data.unlabelled,
            max_length: Some(data.rows.length.max_length),
        }
    }
}

/// Keys that sampling does not read have their defaults.
impl From<PromptSource> for PreferenceData {
    fn from(prompts: PromptSource) -> Self {
        let PromptConfig {
            format,
            columns,
            on_invalid,
            max_invalid_fraction,
            tokens,
            max_prompt_length,
            truncation_mode,
        } = prompts.rows;
        let length = LengthConfig::default();
        Self {
            rows: RowConfig {
                columns,
                on_invalid,
                max_invalid_fraction,
                tokens,
                length: LengthConfig {
                    max_length: prompts.max_length.unwrap_or(length.max_length),
                    max_prompt_length: max_prompt_length.unwrap_or(length.max_prompt_length),
                    truncation_mode,
                    ..length
                },
                ..RowConfig::new(format)
            },
            eval: prompts.eval,
            unlabelled: prompts.unlabelled,
            ..Self::new(format, prompts.train)
        }
    }
}

impl PreferenceData {
    /// The defaults, for rows laid out as `format` in the files `train`.
    pub fn new(format: &'static Format, train: impl Into<Files>) -> Self {
        Self {
            rows: RowConfig::new(format),
            train: train.into(),
            eval: None,
            samples: None,
            unlabelled: None,
            unlabelled_ratio: default_unlabelled_ratio(),
            reference_log_probs: None,
            shuffle: default_shuffle(),
        }
    }

    /// Checks the ranges of the keys and how they go together.
    ///
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<()> {
        self.rows.validate()?;
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
        let samples = match &self.samples {
            Some(SampleSource::Files(files)) => Some(files),
            Some(SampleSource::Auto) | None => None,
        };
        for (key, files) in [
            ("train", Some(&self.train)),
            ("eval", self.eval.as_ref()),
            ("samples", samples),
            ("unlabelled", self.unlabelled.as_ref()),
        ] {
            if files.is_some_and(|files| files.names().any(is_empty)) {
                return Err(Error::input("the path is empty").at_key(key));
            }
        }
        for (key, files) in [("eval", self.eval.as_ref()), ("samples", samples)] {
            if files.is_some_and(Files::is_weighted) {
                return Err(Error::input(format!("{key} has a file with a weight"))
                    .hint("weights are for the rows of train and unlabelled")
                    .at_key(key));
            }
        }
        match &self.reference_log_probs {
            Some(path) if is_empty(path) => {
                Err(Error::input("the path is empty").at_key("reference_log_probs"))
            }
            _ => Ok(()),
        }
    }

    /// A key that has another value than its default, and that sampling does not read.
    pub(super) fn unread_by_sampling(&self) -> Option<&'static str> {
        let set = [
            ("samples", self.samples.is_some()),
            ("reference_log_probs", self.reference_log_probs.is_some()),
            (
                "unlabelled_ratio",
                self.unlabelled_ratio != default_unlabelled_ratio(),
            ),
            ("official_truncation", self.rows.length.official_truncation),
            ("shuffle", self.shuffle != default_shuffle()),
            ("pairing", self.rows.pairing != Pairing::default()),
            ("scores", self.rows.scores != Scores::default()),
        ];
        set.into_iter().find(|(_, set)| *set).map(|(key, _)| key)
    }
}
