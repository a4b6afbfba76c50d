//! `run.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::names::RUN;
use super::record::read;
use crate::data::{Lines, PartCount, RowReport, Spread};
use crate::error::Result;

/// What was run, on what, and what must not change when it is resumed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// The version of expo.
    pub expo: String,
    /// The name of the loss.
    pub loss: String,
    /// What the run depends on, as content hashes.
    pub hashes: Hashes,
    /// Counts of the training rows.
    pub train: Option<RowCounts>,
    /// Counts of the evaluation rows.
    pub eval: Option<RowCounts>,
    /// Counts of the rows without a preference.
    pub unlabelled: Option<RowCounts>,
    /// The commits of the datasets on the hub, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub datasets: BTreeMap<String, String>,
    /// The kind of CPU or GPU; absent in records of early versions.
    pub machine: Option<String>,
    /// Everything the weights depend on, by config key; always written.
    pub frozen: Option<Map<String, Value>>,
    /// The config keys that were changed when the run was resumed.
    pub changes: Vec<Change>,
}

impl RunRecord {
    /// Reads the record of a run directory.
    ///
    /// # Errors
    /// If it is absent or is no record.
    pub fn open(directory: &Path) -> Result<Self> {
        read(&directory.join(RUN))
    }
}

/// SHA-256, in hex, of what a run depends on; empty if it was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hashes {
    /// The weights that the policy started from.
    pub policy: String,
    /// The weights of the reference; none if the loss needs no reference.
    pub reference: Option<String>,
    /// The tokenizer.
    pub tokenizer: String,
}

/// A config key that differs from the original run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// The step that the run was resumed from.
    pub step: u64,
    /// The key.
    pub key: String,
    /// Its value before.
    pub old: Value,
    /// Its value from then on.
    pub new: Value,
}

/// The counts of a [`RowReport`]. Records of earlier versions lack some.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RowCounts {
    /// Rows in the files.
    pub rows: Option<usize>,
    /// Rows that became examples.
    pub kept: Option<usize>,
    /// Rows left out, by reason.
    pub invalid: LeftOut,
    /// Rows kept whose answers are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identical: Option<Lines>,
    /// Columns that nothing reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// What is odd about the rows as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Counts of each file, where one of them has a weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<PartCount>,
    /// Prompts truncated.
    pub cut_prompts: Option<usize>,
    /// Responses truncated.
    pub cut_responses: Option<usize>,
    /// Responses without an end token.
    pub unfinished_responses: Option<usize>,
    /// Tokens of responses that are context.
    pub context_tokens: Option<usize>,
    /// Rows whose prompt and response share a token.
    pub boundary_merges: Option<usize>,
    /// Tokens per prompt.
    pub prompt_tokens: Option<Spread>,
    /// Tokens per response.
    pub response_tokens: Option<Spread>,
    /// Tokens per example.
    pub example_tokens: Option<Spread>,
}

impl From<&RowReport> for RowCounts {
    fn from(report: &RowReport) -> Self {
        let reasons = report.invalid.iter();
        let reasons = reasons.map(|(reason, lines)| (reason.name().to_owned(), lines.clone()));
        Self {
            rows: Some(report.rows),
            kept: Some(report.kept),
            invalid: LeftOut(reasons.collect()),
            identical: Some(report.identical.clone()).filter(|lines| lines.rows > 0),
            unread: report.unread.clone(),
            notes: report.notes.clone(),
            mixture: report.mixture.clone(),
            cut_prompts: Some(report.cut_prompts),
            cut_responses: Some(report.cut_responses),
            unfinished_responses: Some(report.unfinished_responses),
            context_tokens: Some(report.context_tokens),
            boundary_merges: Some(report.boundary_merges),
            prompt_tokens: Some(report.prompt_tokens),
            response_tokens: Some(report.response_tokens),
            example_tokens: Some(report.example_tokens),
        }
    }
}

/// Rows left out, by reason, in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LeftOut(pub Vec<(String, Lines)>);

impl Serialize for LeftOut {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(reason, lines)| (reason, lines)))
    }
}

impl<'de> Deserialize<'de> for LeftOut {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let map = Map::<String, Value>::deserialize(from)?;
        let lines = map.into_iter().map(|(reason, lines)| {
            let lines = serde_json::from_value(lines).map_err(serde::de::Error::custom)?;
            Ok((reason, lines))
        });
        lines.collect::<std::result::Result<_, _>>().map(Self)
    }
}
