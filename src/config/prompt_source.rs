//! Where prompts come from.

use crate::data::format::Format;
use crate::data::{Files, PromptConfig};

/// Files whose prompts are answered: rows of any format, or a text file with a prompt on each line.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptSource {
    /// How prompts become tokens.
    pub rows: PromptConfig,
    /// The rows.
    pub train: Files,
    /// More of them, in the same format.
    pub eval: Option<Files>,
    /// More of them, in any format.
    pub unlabelled: Option<Files>,
    /// The most tokens of a prompt with its response; `None` for what the model can hold.
    pub max_length: Option<usize>,
}

impl PromptSource {
    /// All files of rows that it names.
    pub fn files(&self) -> impl Iterator<Item = &Files> {
        [&self.train]
            .into_iter()
            .chain(&self.eval)
            .chain(&self.unlabelled)
    }

    /// Rows laid out as `format` in the files `train`, in the lengths that the model can hold.
    pub fn new(format: &'static Format, train: impl Into<Files>) -> Self {
        Self {
            rows: PromptConfig::new(format),
            train: train.into(),
            eval: None,
            unlabelled: None,
            max_length: None,
        }
    }
}
