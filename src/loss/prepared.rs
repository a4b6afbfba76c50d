//! What a loss computes of an optimizer-step batch before its examples are evaluated.
//!
//! *Why*: examples are evaluated one micro-batch at a time, and some losses compare each with the
//! whole batch. They compute that first, as plain numbers that only they interpret, so the result
//! is exact whatever the micro-batches are.

/// Statistics of a batch: for each example a list of numbers with a meaning for the loss that made
/// them alone. No gradient flows through them.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared(Statistics);

#[derive(Debug, Clone, PartialEq)]
enum Statistics {
    OfBatch(Vec<f64>),
    OfExamples(Vec<Vec<f64>>),
}

impl Prepared {
    /// Of a loss that reads each example on its own.
    pub fn none() -> Self {
        Self(Statistics::OfBatch(Vec::new()))
    }

    /// Statistics that are the same for every example.
    pub fn of_batch(statistics: impl Into<Vec<f64>>) -> Self {
        Self(Statistics::OfBatch(statistics.into()))
    }

    /// Statistics of each example, in the order of the batch.
    pub fn of_examples(statistics: impl IntoIterator<Item = Vec<f64>>) -> Self {
        Self(Statistics::OfExamples(statistics.into_iter().collect()))
    }

    /// The statistics of the example at this place in the batch.
    ///
    /// # Panics
    /// If they are of examples and the batch has none at `index`.
    pub fn of(&self, index: usize) -> &[f64] {
        match &self.0 {
            Statistics::OfBatch(statistics) => statistics,
            Statistics::OfExamples(all) => &all[index],
        }
    }
}
