//! Which rows a step sees.
//!
//! *Why*: a pure function of the step's number, so that a run can begin anywhere.

mod lanes;
mod order;
pub mod pack;

use std::ops::Range;

pub use lanes::deal;
pub(in crate::data) use order::below;
pub use order::{ORDER_VERSION, epoch_order};

/// Passes over unlabelled rows have orders of their own.
const UNLABELLED: u64 = 1 << 63;

/// The rows of a run: `labelled` first, then `unlabelled`.
#[derive(Debug, Clone)]
pub struct Batches {
    /// The number of labelled rows.
    pub labelled: usize,
    /// The number of unlabelled rows.
    pub unlabelled: usize,
    /// Unlabelled rows per labelled one.
    pub ratio: f64,
    /// Labelled rows per step; the last step of an epoch may have fewer.
    pub size: usize,
    /// Seed of the orders.
    pub seed: u64,
    /// Whether each epoch has another order.
    pub shuffle: bool,
}

impl Batches {
    /// Steps of an epoch.
    pub fn per_epoch(&self) -> u64 {
        self.labelled.div_ceil(self.size) as u64
    }

    /// The rows of step number `step`, from 0.
    pub fn rows(&self, step: u64, orders: &mut Orders) -> Vec<usize> {
        let (epoch, within) = (step / self.per_epoch(), (step % self.per_epoch()) as usize);
        let from = within * self.size;
        let to = self.labelled.min(from + self.size);
        let order = || epoch_order(self.labelled, self.seed, epoch, self.shuffle);
        let mut rows = orders.labelled.of(epoch, order)[from..to].to_vec();
        let before = epoch as f64 * self.labelled as f64;
        for row in self.drawn(before + from as f64, before + to as f64) {
            let (pass, at) = (row / self.unlabelled, row % self.unlabelled);
            let pass = UNLABELLED + pass as u64;
            let order = || epoch_order(self.unlabelled, self.seed, pass, self.shuffle);
            rows.push(self.labelled + orders.unlabelled.of(pass, order)[at]);
        }
        rows
    }

    /// Of the unlabelled rows in their endless order, those that go with labelled rows `from..to`.
    fn drawn(&self, from: f64, to: f64) -> Range<usize> {
        if self.unlabelled == 0 {
            return 0..0;
        }
        let rows = |labelled: f64| (labelled * self.ratio).floor() as usize;
        rows(from)..rows(to)
    }
}

/// The orders in use, so that a step does not shuffle a whole dataset.
#[derive(Debug, Default)]
pub struct Orders {
    labelled: Order,
    unlabelled: Order,
}

#[derive(Debug, Default)]
struct Order {
    rows: Vec<usize>,
    of: Option<u64>,
}

impl Order {
    fn of(&mut self, epoch: u64, order: impl FnOnce() -> Vec<usize>) -> &[usize] {
        if self.of != Some(epoch) {
            self.rows = order();
            self.of = Some(epoch);
        }
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(batches: &Batches, steps: u64) -> Vec<Vec<usize>> {
        let mut orders = Orders::default();
        (0..steps)
            .map(|step| batches.rows(step, &mut orders))
            .collect()
    }

    #[test]
    fn an_epoch_has_every_row_once_and_unlabelled_ones_at_their_ratio() {
        let mut batches = Batches {
            labelled: 5,
            unlabelled: 3,
            ratio: 0.5,
            size: 2,
            seed: 1,
            shuffle: false,
        };
        let steps = all(&batches, 6);
        assert_eq!(steps[..3], [vec![0, 1, 5], vec![2, 3, 6], vec![4]]);
        // The fifth unlabelled row of ten labelled ones is the second of the second pass.
        assert_eq!(steps[3..], [vec![0, 1, 7], vec![2, 3, 5], vec![4, 6]]);
        batches.shuffle = true;
        let shuffled = all(&batches, 6);
        for epoch in [&shuffled[..3], &shuffled[3..]] {
            let mut rows: Vec<usize> = epoch.concat().into_iter().filter(|&row| row < 5).collect();
            rows.sort_unstable();
            assert_eq!(rows, [0, 1, 2, 3, 4]);
        }
        let mut fresh = Orders::default();
        assert_eq!(batches.rows(4, &mut fresh), shuffled[4]);
    }
}
