//! Several answers to a prompt, in an order.
//!
//! Hides how the order is said, and which of the answers make pairs.
//!
//! *Why*: a loss of pairs learns from two answers. The best beside the worst differ most, another one
//! beside the best shows more of what there is, and all of them weigh a prompt by the number of its
//! answers; so it is a key. Nothing is drawn that the seed of a run changes: a row is the same pairs in
//! every run.

use super::definition::{Format, Reading, RowExample, TruncationMode, content, has, need};
use super::messages::{common, parsed};
use crate::data::chat::{Content, Message};
use crate::data::rows::invalid::{Invalid, RowError};
use crate::data::rows::read::Row;
use crate::error::Error;
use crate::loss::Role;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

pub(super) const FORMAT: Format = Format {
    name: "ranked",
    names: &[
        "prompt",
        "answers",
        "ranks",
        "scores",
        "system",
        "tools",
        "chat_template_kwargs",
    ],
    columns: "prompt; answers: a list; ranks (1 is the best) or scores (the highest is), a list of numbers",
    truncation: TruncationMode::KeepStart,
    has_pairs: true,
    writes_turns: false,
    splits_turns: false,
    fits: |row| {
        has(row, &["prompt", "answers", "ranks"]).max(has(row, &["prompt", "answers", "scores"]))
    },
    read,
};

/// Which of a row's ranked answers are pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// The best and the worst: one pair.
    #[default]
    BestWorst,
    /// The best and one of the worse, drawn by the number of the row: one pair.
    BestRandom,
    /// Each of the answers and each worse one.
    All,
}

fn read(row: &Row) -> Reading {
    let prompt = content(row, "prompt")?;
    let answers = list(row, "answers")?;
    let (column, sign) = match row.get("ranks") {
        Some(_) => ("ranks", -1.0),
        None => ("scores", 1.0),
    };
    let numbers = list(row, column)?;
    if numbers.len() != answers.len() {
        let what = format!("{} answers, and {} {column}", answers.len(), numbers.len());
        return Err(Error::input(what).at(&row.place).into());
    }
    let mut ranked = Vec::new();
    for (answer, number) in answers.iter().zip(&numbers) {
        // An answer that nobody judged has no place in the order.
        let number = match number {
            Json::Null => continue,
            Json::String(text) if text.eq_ignore_ascii_case("n/a") => continue,
            Json::String(text) => text.parse().ok(),
            number => number.as_f64(),
        };
        let number = number
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| row.wrong(column, "a list of numbers"))?;
        ranked.push((sign * number, text_or_messages(row, answer)?));
    }
    if ranked.len() < 2 {
        let error = Error::input(format!("{} of the answers has a rank", ranked.len()));
        return Err(RowError::Unusable(
            Invalid::FewAnswers,
            error.at(&row.place),
        ));
    }
    // The best first; of equals in the order of the row.
    ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let ranking: Vec<f64> = ranked.iter().map(|(score, _)| *score).collect();
    if ranking.first() == ranking.last() {
        return Err(Invalid::Tie.into());
    }
    let role = |at: usize| {
        if at == 0 {
            Role::Chosen
        } else {
            Role::Rejected
        }
    };
    let answers = ranked.into_iter().enumerate();
    Ok(RowExample {
        answers: answers
            .map(|(at, (_, answer))| (role(at), answer))
            .collect(),
        ranking,
        ..RowExample::of_prompt(prompt)
    })
}

fn list(row: &Row, column: &str) -> Result<Vec<Json>, RowError> {
    let parsed = match need(row, column)? {
        Json::String(text) => parsed(text),
        value => Some(value.clone()),
    };
    match parsed {
        Some(Json::Array(items)) => Ok(items),
        _ => Err(row.wrong(column, "a list").into()),
    }
}

fn text_or_messages(row: &Row, answer: &Json) -> Result<Content, RowError> {
    let wrong = || {
        let what = "column `answers` has an item that is neither a string nor messages";
        RowError::Unusable(Invalid::Malformed, Error::input(what).at(&row.place))
    };
    match &*common(answer) {
        Json::String(text) => Ok(Content::Text(text.clone())),
        Json::Array(items) if !items.is_empty() => {
            let messages = items.iter().map(Message::from_json);
            let messages = messages.collect::<crate::error::Result<_>>();
            Ok(Content::Messages(messages.map_err(|_| wrong())?))
        }
        _ => Err(wrong()),
    }
}

impl RowExample {
    /// The pairs of its ranked answers; itself where they have no order. `number` is the row's.
    pub(in crate::data) fn pairs(self, pairing: Pairing, number: usize) -> Vec<Self> {
        if self.ranking.is_empty() {
            return vec![self];
        }
        let ranking = &self.ranking;
        let worse = |than: usize| {
            let all = than + 1..ranking.len();
            all.filter(move |&at| ranking[at] < ranking[than])
        };
        let pairs: Vec<(usize, usize)> = match pairing {
            Pairing::BestWorst => vec![(0, ranking.len() - 1)],
            Pairing::BestRandom => {
                let worse: Vec<usize> = worse(0).collect();
                vec![(0, worse[draw(number, worse.len())])]
            }
            Pairing::All => (0..ranking.len())
                .flat_map(|better| worse(better).map(move |worse| (better, worse)))
                .collect(),
        };
        let pair = |(better, worse): (usize, usize)| {
            let answer = |at: usize| self.answers[at].1.clone();
            Self {
                prompt: self.prompt.clone(),
                answers: vec![
                    (Role::Chosen, answer(better)),
                    (Role::Rejected, answer(worse)),
                ],
                preference: self.preference,
                scores: self.scores,
                ranking: Vec::new(),
                variables: self.variables.clone(),
            }
        };
        pairs.into_iter().map(pair).collect()
    }
}

// A number below `of` that belongs to a row.
fn draw(number: usize, of: usize) -> usize {
    let digest = Sha256::digest((number as u64).to_le_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    (u64::from_le_bytes(bytes) % of as u64) as usize
}
