//! The rows of a split as the step sees them.
//!
//! Hides which of them have samples of the policy for now, in place of those of the dataset.
//!
//! *Why*: samples of the policy are drawn for a batch and worth nothing after it, so they lie beside
//! the dataset, which never changes, and no longer than until the next ones.

use std::collections::HashMap;

use crate::data::pack::{LengthClass, packed_tokens};
use crate::data::{Dataset, Example};
use crate::error::Result;
use crate::kernels::profile::{Part, part};
use crate::loss::Role;
use crate::score::{Column, Score};

/// The score of a response where the loss needs no reference: nothing reads it.
const UNSCORED: Score = Score {
    log_prob: f64::NAN,
    tokens: 0,
    shared: None,
};

/// A dataset with the reference's log-probs beside it.
pub(super) struct Split {
    pub dataset: Dataset,
    /// `None` where the loss needs no reference.
    pub reference: Option<Column>,
    drawn: HashMap<usize, (Example, Vec<Score>)>,
}

impl Split {
    pub fn new(dataset: Dataset, reference: Option<Column>) -> Self {
        Self {
            dataset,
            reference,
            drawn: HashMap::new(),
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.dataset.len()
    }

    /// Appends the rows of another one.
    pub fn append(&mut self, other: Self) -> Result<()> {
        if let (Some(own), Some(other)) = (&mut self.reference, &other.reference) {
            own.append(other);
        }
        self.dataset.append(other.dataset)
    }

    /// Rows with their responses' scores, in place of those of the dataset and of those that were
    /// given before.
    pub fn replace(&mut self, drawn: HashMap<usize, (Example, Vec<Score>)>) {
        self.drawn = drawn;
    }

    /// A row.
    pub fn example(&self, row: usize) -> Result<Example> {
        match self.drawn.get(&row) {
            Some((example, _)) => Ok(example.clone()),
            None => self.dataset.example(row),
        }
    }

    /// These rows.
    pub fn examples(&self, rows: &[usize]) -> Result<Vec<Example>> {
        let _profile = part(Part::Data);
        rows.iter().map(|&row| self.example(row)).collect()
    }

    /// The tokens that a row takes in a batch with these roles, packed by these classes.
    pub fn tokens(&self, row: usize, roles: &[Role], class: LengthClass) -> Result<usize> {
        match self.drawn.get(&row) {
            Some((example, _)) => Ok(packed_tokens(example, roles, class)),
            None => self.dataset.packed_tokens(row, roles, class),
        }
    }

    /// The score of a row's response under the reference.
    pub fn score(&self, row: usize, response: usize) -> Score {
        match self.drawn.get(&row) {
            Some((_, scores)) => scores[response],
            None => self.given_score(row, response),
        }
    }

    /// As [`score`](Self::score), of the row as the dataset has it.
    pub fn given_score(&self, row: usize, response: usize) -> Score {
        match &self.reference {
            Some(column) => column.score(row, response),
            None => UNSCORED,
        }
    }
}
