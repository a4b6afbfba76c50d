//! The sections of an experiment's config.

use serde::{Deserialize, Serialize};

use super::contest::Losses;
use super::grid::Grid;
use super::problem::{Draws, Example, Prompt};
use super::train::TrainConfig;
use crate::error::{Error, Result};

/// `experiment = "interpolation"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interpolation {
    /// Has been read when this type was chosen.
    #[serde(skip_serializing)]
    experiment: String,
    /// The prompt.
    pub problem: Prompt,
    /// Pairs to train on.
    pub data: Data,
    /// What is compared.
    pub losses: Losses,
    /// The papers' training.
    pub train: TrainConfig,
}

/// `experiment = "preservation"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preservation {
    /// Has been read when this type was chosen.
    #[serde(skip_serializing)]
    experiment: String,
    /// Which way round the bad prompt is; one figure each.
    pub placements: Vec<Placement>,
    /// How far a policy is from pi*.
    pub distance: Distance,
    /// A prompt whose reference is optimal.
    pub good: Prompt,
    /// A prompt whose reference is not.
    pub bad: Prompt,
    /// Pairs to train on, of each prompt.
    pub data: Data,
    /// What is compared.
    pub losses: Losses,
    /// The papers' training.
    pub train: TrainConfig,
}

/// `experiment = "constraint"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// Has been read when this type was chosen.
    #[serde(skip_serializing)]
    experiment: String,
    /// Of DPO and of RLHF.
    pub beta: f64,
    /// What the penalty is of.
    pub penalty: Penalty,
    /// The prompt.
    pub problem: Prompt,
    /// Pairs to train DPO on.
    pub data: Data,
    /// Weights of the penalty.
    pub alpha: Grid,
    /// The papers' training.
    pub train: TrainConfig,
}

/// `experiment = "theory"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Theory {
    /// Has been read when this type was chosen.
    #[serde(skip_serializing)]
    experiment: String,
    /// Where interpolation is looked at.
    pub problem: Prompt,
    /// A prompt whose reference is optimal.
    pub good: Prompt,
    /// A prompt whose reference is not; also taken the other way round.
    pub bad: Prompt,
    /// What is judged.
    pub losses: Losses,
}

/// The most comparisons of a prompt: each is a row in memory.
const MOST_COMPARISONS: usize = 10_000_000;

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// What is trained on.
    pub comparisons: Comparisons,
}

/// Drawn, or given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of draws, or a table of how often response i was preferred to j"
)]
pub enum Comparisons {
    /// Draws of two responses, uniform; two equal ones are not a pair.
    Draws(usize),
    /// How often response i was preferred to j.
    Wins(Vec<Vec<usize>>),
}

/// Which way round the bad prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// As in the papers' text.
    Text,
    /// As in the authors' notebook: optimal policy and reference in each other's place.
    Notebook,
}

/// How far a policy is from pi*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distance {
    /// KL(pi* || pi).
    Sum,
    /// KL(pi* || pi) over the number of responses, as in the authors' plots.
    Mean,
}

/// What a penalty is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Penalty {
    /// The logits: |theta|^2.
    Theta,
    /// The probabilities: |pi|^2.
    Policy,
}

impl Data {
    /// The pairs of one seed, of all prompts.
    pub(super) fn pairs(&self, prompts: &[Prompt], seed: u64) -> Vec<Example> {
        let mut draws = Draws::new(seed, 0);
        let of_prompt = |index: usize| match &self.comparisons {
            Comparisons::Wins(wins) => counted(wins, index),
            Comparisons::Draws(count) => draws.pairs(prompts, index, *count),
        };
        let pairs: Vec<Example> = (0..prompts.len()).flat_map(of_prompt).collect();
        // The pairs of several prompts are pooled, and counts have no order of their own.
        if prompts.len() == 1 && matches!(self.comparisons, Comparisons::Draws(_)) {
            return pairs;
        }
        let order = crate::data::epoch_order(pairs.len(), seed, u64::MAX, true);
        order.into_iter().map(|index| pairs[index]).collect()
    }

    pub(super) fn validate(&self, responses: usize) -> Result<()> {
        match &self.comparisons {
            Comparisons::Draws(1..=MOST_COMPARISONS) => Ok(()),
            Comparisons::Draws(count) => {
                let valid = format!("in [1, {MOST_COMPARISONS}]");
                Err(Error::must_be("comparisons", valid, count))
            }
            Comparisons::Wins(wins) => {
                check_wins(wins, responses).map_err(|error| error.at_key("comparisons"))
            }
        }
    }
}

fn check_wins(wins: &[Vec<usize>], n: usize) -> Result<()> {
    let wrong = |what: String| Err(Error::input(what));
    if wins.len() != n || wins.iter().any(|row| row.len() != n) {
        return wrong(format!(
            "expected {n} rows of {n} counts, one for each response"
        ));
    }
    if (0..n).any(|i| wins[i][i] > 0) {
        return wrong("a response is not preferred to itself; the diagonal is 0".to_owned());
    }
    let sum = wins.iter().flatten();
    match sum.fold(0, |sum: usize, &count| sum.saturating_add(count)) {
        0 => wrong("all counts are 0".to_owned()),
        1..=MOST_COMPARISONS => Ok(()),
        _ => wrong(format!("the counts add up to more than {MOST_COMPARISONS}")),
    }
}

fn counted(wins: &[Vec<usize>], prompt: usize) -> Vec<Example> {
    let mut examples = Vec::new();
    for (chosen, row) in wins.iter().enumerate() {
        for (rejected, &count) in row.iter().enumerate() {
            let example = Example {
                prompt,
                chosen,
                rejected,
                sampled: None,
                weight: 1.0,
            };
            examples.extend(std::iter::repeat_n(example, count));
        }
    }
    examples
}
