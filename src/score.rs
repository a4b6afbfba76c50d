//! Log-probs as a column: the scoring pass, its file and its cache.
//!
//! Hides how the reference's log-probs get to the training step: computed once per (model, tokens),
//! written as JSON lines, found again by content hash.
//!
//! *Why*: the reference never changes, so a second model in memory and a second forward pass in
//! every step are a waste. The file can come from another machine; its hashes say what it is of.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::write_file;
use crate::data::pack::{Packed, micro_batches, packed_tokens};
use crate::data::{Dataset, Example};
use crate::error::{Error, Result};
use crate::loss::Role;
use crate::model::Decoder;
use crate::model::head::ResponseScore;

/// Whose log-probs they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scorer {
    /// Content hash of the model.
    pub model: String,
    /// Hash of the tokenizer.
    pub tokenizer: String,
    /// Dtype of the computation.
    pub dtype: String,
}

/// One response's log-probs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// log pi(y|x), summed over the scored tokens, in nats.
    pub log_prob: f64,
    /// Scored tokens.
    pub tokens: usize,
    /// The part of `log_prob` that is of the first min(|y_w|, |y_l|) tokens, for the answers of a
    /// pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<f64>,
}

/// One line of a score file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ScoreRow {
    row: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<Score>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<Score>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sampled: Vec<Score>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mismatched: Vec<Score>,
    /// Hash of the prompt's and the responses' token ids.
    token_hash: String,
    #[serde(flatten)]
    scorer: Scorer,
}

/// The scores of every response of every example, in the order of the examples.
pub type Column = Vec<Vec<Score>>;

/// Scores all responses of all examples without a gradient; `progress` is told the examples done.
///
/// # Errors
/// [`Error::NonFinite`] naming the row where a log-prob is not finite.
pub fn score(
    model: &Decoder,
    examples: &[Example],
    micro_batch_tokens: usize,
    mut progress: impl FnMut(usize),
) -> Result<Column> {
    let lengths: Vec<usize> = examples
        .iter()
        .map(|e| packed_tokens(e, Role::ALL))
        .collect();
    let mut column = Vec::with_capacity(examples.len());
    for range in micro_batches(&lengths, micro_batch_tokens) {
        let batch = &examples[range];
        for (example, scores) in batch
            .iter()
            .zip(model.score(&Packed::new(batch, Role::ALL))?)
        {
            if scores.iter().any(|score| !score.log_prob.is_finite()) {
                let log_probs: Vec<f64> = scores.iter().map(|score| score.log_prob).collect();
                let what = format!(
                    "row {}: log-probs {log_probs:?} are not finite",
                    example.row
                );
                return Err(Error::NonFinite(what));
            }
            let score = |s: &ResponseScore| Score {
                log_prob: s.log_prob,
                tokens: s.tokens,
                shared: s.shared,
            };
            column.push(scores.iter().map(score).collect());
        }
        progress(column.len());
    }
    Ok(column)
}

/// Writes a column as JSON lines, `{"row": 0, "chosen": {"log_prob": …, "tokens": …}, …}`.
pub fn write(path: &Path, examples: &[Example], column: &Column, scorer: &Scorer) -> Result<()> {
    let mut text = String::new();
    for (example, scores) in examples.iter().zip(column) {
        let row = row(example, scores, scorer);
        text += &serde_json::to_string(&row).map_err(|error| Error::failed(error.to_string()))?;
        text.push('\n');
    }
    write_file(path, text.as_bytes())
}

fn row(example: &Example, scores: &[Score], scorer: &Scorer) -> ScoreRow {
    let scores = |role: Role| -> Vec<Score> {
        let both = example.responses.iter().zip(scores);
        both.filter(|(response, _)| response.role == role)
            .map(|(_, score)| *score)
            .collect()
    };
    ScoreRow {
        row: example.row,
        chosen: scores(Role::Chosen).first().copied(),
        rejected: scores(Role::Rejected).first().copied(),
        sampled: scores(Role::Sampled),
        mismatched: scores(Role::Mismatched),
        token_hash: example.hash(),
        scorer: scorer.clone(),
    }
}

/// A score file, its rows found by the hash of their tokens.
#[derive(Debug)]
pub struct ScoreFile {
    /// Whose log-probs they are.
    pub scorer: Scorer,
    rows: HashMap<String, ScoreRow>,
    place: String,
}

impl ScoreFile {
    /// Reads a file of [`write()`]; several files one after the other are one, if of one model.
    pub fn open(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|error| Error::io(path, &error))?;
        let mut scorer: Option<Scorer> = None;
        let mut rows = HashMap::new();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let at = || format!("{place}:{}", number + 1);
            let line = line.map_err(|error| Error::io(path, &error))?;
            if line.trim().is_empty() {
                continue;
            }
            let row: ScoreRow = serde_json::from_str(&line).map_err(|error| {
                Error::input(format!("not a row of scores: {error}"))
                    .at(at())
                    .hint("expected a line that `expo score` wrote")
            })?;
            if scorer.get_or_insert_with(|| row.scorer.clone()) != &row.scorer {
                return Err(
                    Error::input("the row is of another model, tokenizer or dtype")
                        .at(at())
                        .hint("a score file has the rows of one model"),
                );
            }
            rows.insert(row.token_hash.clone(), row);
        }
        match scorer {
            Some(scorer) => Ok(Self {
                scorer,
                rows,
                place,
            }),
            None => Err(Error::input("no rows").at(place)),
        }
    }

    /// The scores of these examples, with the sums of shared tokens if `shared`.
    ///
    /// # Errors
    /// Names the first example that is not in the file with just these tokens.
    pub fn column(&self, examples: &[Example], shared: bool) -> Result<Column> {
        examples
            .iter()
            .map(|example| self.scores(example, shared))
            .collect()
    }

    fn scores(&self, example: &Example, shared: bool) -> Result<Vec<Score>> {
        let missing = || {
            let same = self.rows.values().any(|row| row.row == example.row);
            let why = if same {
                "has other tokens there"
            } else {
                "lacks it"
            };
            Error::input(format!(
                "row {} is not in the file, which {why}",
                example.row
            ))
            .at(&self.place)
            .hint("score again with this config, and append the scores of the evaluation rows")
        };
        let row = self.rows.get(&example.hash()).ok_or_else(missing)?;
        let (mut sampled, mut mismatched) = (row.sampled.iter(), row.mismatched.iter());
        let score = |role: Role| match role {
            Role::Chosen => row.chosen,
            Role::Rejected => row.rejected,
            Role::Sampled => sampled.next().copied(),
            Role::Mismatched => mismatched.next().copied(),
        };
        let scores: Option<Vec<Score>> = example
            .responses
            .iter()
            .map(|r| r.role)
            .map(score)
            .collect();
        let finite = |score: &Score| score.log_prob.is_finite() && score.log_prob <= 0.0;
        match scores {
            Some(scores) if shared && scores.iter().all(|score| score.shared.is_none()) => {
                Err(Error::input(format!(
                    "row {}: no `shared` log-probs, which the loss reads",
                    example.row
                ))
                .at(&self.place)
                .hint("score again"))
            }
            Some(scores) if scores.iter().all(finite) => Ok(scores),
            Some(_) => Err(
                Error::input(format!("row {}: a log-prob above 0", example.row)).at(&self.place),
            ),
            None => Err(missing()),
        }
    }
}

/// The name of a cached column: a hash of everything it depends on.
pub fn cache_name(scorer: &Scorer, datasets: &[&Dataset]) -> String {
    let mut hasher = Sha256::new();
    for part in [&scorer.model, &scorer.tokenizer, &scorer.dtype] {
        hasher.update(part);
        hasher.update([0]);
    }
    for dataset in datasets {
        hasher.update(&dataset.fingerprint);
    }
    format!("{:.32}.jsonl", format!("{:x}", hasher.finalize()))
}
