//! The file of a column: written line by line, found again by the hash of the tokens.
//!
//! Hides the columns of a line, and how a row is matched.
//!
//! *Why*: a file of millions of rows is read in the memory of its numbers alone, and its rows may be
//! of other files, in another order.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::io::BufReader;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Column, Score, Scorer};
use crate::data::{Dataset, Example};
use crate::error::{Error, Result};
use crate::io::durable::json_line;
use crate::io::output::Output;
use crate::io::untrusted::{self, Line};
use crate::loss::Role;

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

impl ScoreRow {
    fn new(
        example: &Example,
        scores: impl Iterator<Item = Score> + Clone,
        scorer: &Scorer,
    ) -> Self {
        let scores = |role: Role| -> Vec<Score> {
            let both = example.responses.iter().zip(scores.clone());
            both.filter(|(response, _)| response.role == role)
                .map(|(_, score)| score)
                .collect()
        };
        Self {
            row: example.row,
            chosen: scores(Role::Chosen).first().copied(),
            rejected: scores(Role::Rejected).first().copied(),
            sampled: scores(Role::Sampled),
            mismatched: scores(Role::Mismatched),
            token_hash: example.hash(),
            scorer: scorer.clone(),
        }
    }

    fn scores(&self) -> impl Iterator<Item = (Role, Score)> + Clone + '_ {
        let of = |role: Role| move |score: &Score| (role, *score);
        let chosen = self.chosen.iter().map(of(Role::Chosen));
        let rejected = self.rejected.iter().map(of(Role::Rejected));
        let sampled = self.sampled.iter().map(of(Role::Sampled));
        let mismatched = self.mismatched.iter().map(of(Role::Mismatched));
        chosen.chain(rejected).chain(sampled).chain(mismatched)
    }
}

/// Writes the scores of the distinct examples of datasets as JSON lines, one after the other,
/// `{"row": 0, "chosen": {"log_prob": …, "tokens": …}, …}`.
pub fn write(
    out: &Output,
    datasets: &[impl Borrow<Dataset>],
    columns: &[Column],
    scorer: &Scorer,
) -> Result<()> {
    let path = out.path();
    out.write(|out| {
        for (dataset, column) in datasets.iter().zip(columns) {
            let dataset = dataset.borrow();
            for (index, example) in dataset.distinct().into_iter().enumerate() {
                let row = ScoreRow::new(&dataset.example(example)?, column.of(index), scorer);
                let line = json_line(&row)?;
                out.write_all(line.as_bytes())
                    .map_err(|error| Error::io(path, &error))?;
            }
        }
        Ok(())
    })
}

/// The first half of a hash of tokens.
type Key = [u8; 16];

/// A score file, its rows found by the hash of their tokens.
#[derive(Debug)]
pub struct ScoreFile {
    /// Whose log-probs they are.
    pub scorer: Scorer,
    // Where in the lists below the scores of these tokens are.
    lines: HashMap<Key, u32>,
    rows: Vec<usize>,
    scores: Column,
    // Of every score.
    roles: Vec<Role>,
    place: String,
}

impl ScoreFile {
    /// Reads a file of [`write()`]; several files one after the other are one, if of one model.
    pub fn open(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let mut reader = BufReader::new(untrusted::open(path)?);
        let mut scorer: Option<Scorer> = None;
        let mut lines = HashMap::new();
        let (mut rows, mut scores, mut roles) = (Vec::new(), Column::default(), Vec::new());
        for number in 1.. {
            let at = || format!("{place}:{number}");
            let line =
                match untrusted::line(&mut reader).map_err(|error| Error::io(path, &error))? {
                    Line::End => break,
                    Line::TooLong => return Err(untrusted::too_long().at(at())),
                    Line::Whole(line) => line,
                };
            if number == 1
                && let Some((what, hint)) = untrusted::something_else(&line, false)
            {
                return Err(Error::input(what).hint(hint).at(place));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let wrong = |what: String| {
                Error::input(format!("not a row of scores: {what}"))
                    .at(at())
                    .hint("name a file that expo score wrote")
            };
            let row: ScoreRow = serde_json::from_slice(&line).map_err(|error| {
                wrong(
                    error
                        .to_string()
                        .replace("struct Score", "the score of a response"),
                )
            })?;
            if *scorer.get_or_insert_with(|| row.scorer.clone()) != row.scorer {
                return Err(
                    Error::input("the row is of another model, tokenizer or dtype")
                        .at(at())
                        .hint("a score file has the rows of one model"),
                );
            }
            let key = key(&row.token_hash)
                .ok_or_else(|| wrong("`token_hash` is not a hash of tokens".to_owned()))?;
            lines.insert(key, rows.len() as u32);
            rows.push(row.row);
            scores.push(row.scores().map(|(_, score)| score));
            roles.extend(row.scores().map(|(role, _)| role));
        }
        match scorer {
            Some(scorer) => Ok(Self {
                scorer,
                lines,
                rows,
                scores,
                roles,
                place,
            }),
            None => Err(Error::input("no rows").at(place)),
        }
    }

    /// The scores of a dataset, with the sums of shared tokens if `shared`.
    ///
    /// # Errors
    /// Names the first example that is not in the file with just these tokens.
    pub fn column(&self, dataset: &Dataset, shared: bool) -> Result<Column> {
        let mut column = Column::default();
        for example in dataset.examples() {
            column.push(self.scores(&example?, shared)?);
        }
        Ok(column)
    }

    fn scores(&self, example: &Example, shared: bool) -> Result<Vec<Score>> {
        let missing = || {
            let why = match self.rows.contains(&example.row) {
                true => "has other tokens there",
                false => "lacks it",
            };
            Error::input(format!(
                "row {} is not in the file, which {why}",
                example.row
            ))
            .at(&self.place)
            .hint("score again: expo score with this config writes all of its rows, evaluation rows included")
        };
        let found = key(&example.hash()).and_then(|key| self.lines.get(&key));
        let line = *found.ok_or_else(missing)? as usize;
        let roles = &self.roles[self.scores.range(line)];
        let mut left: Vec<(Role, Score)> =
            roles.iter().copied().zip(self.scores.of(line)).collect();
        let mut score = |role: Role| {
            let next = left.iter().position(|(other, _)| *other == role)?;
            Some(left.remove(next).1)
        };
        let scores: Option<Vec<Score>> = example.responses.iter().map(|r| score(r.role)).collect();
        let finite = |score: &Score| score.log_prob.is_finite() && score.log_prob <= 0.0;
        let mut both = example.responses.iter().zip(scores.iter().flatten());
        let longer = both.find(|(response, score)| example.scored_tokens(response) != score.tokens);
        if let Some((response, score)) = longer {
            return Err(Error::input(format!(
                "row {}: {} tokens scored, where the response has {}",
                example.row,
                score.tokens,
                example.scored_tokens(response)
            ))
            .at(&self.place)
            .hint("score again"));
        }
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

fn key(hash: &str) -> Option<Key> {
    if !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = Key::default();
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hash.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(key)
}
