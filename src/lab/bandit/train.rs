//! The papers' training: Adam on minibatches of drawn pairs, the gradient clipped.

use serde::{Deserialize, Serialize};

use super::problem::{Example, gathered};
use crate::data::epoch_order;
use crate::error::{Error, Result};

/// The most epochs of all seeds together: a policy is kept of each.
const MOST_EPOCHS: usize = 10_000_000;

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Pairs per step; an epoch's last batch has what is left.
    pub batch_size: usize,
    /// Adam's, constant.
    pub learning_rate: f64,
    /// Passes over the pairs.
    pub num_train_epochs: usize,
    /// The norm that gradients of all prompts together are clipped to.
    pub max_grad_norm: f64,
    /// The order of an epoch.
    pub order: Order,
    /// The first seed, of draws and orders.
    pub seed: u64,
    /// Runs, each with the seed after the one before.
    pub num_seeds: usize,
}

/// The order of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Another one in each epoch.
    Shuffle,
    /// As drawn, as in the authors' runs: the last, short batch is always of the same pairs.
    File,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch_size: 20,
            learning_rate: 1e-3,
            num_train_epochs: 1000,
            max_grad_norm: 10.0,
            order: Order::Shuffle,
            seed: 0,
            num_seeds: 1,
        }
    }
}

impl TrainConfig {
    /// Refuses what makes no training.
    pub fn validate(&self) -> Result<()> {
        let numbers = [
            ("batch_size", self.batch_size as f64),
            ("learning_rate", self.learning_rate),
            ("num_train_epochs", self.num_train_epochs as f64),
            ("max_grad_norm", self.max_grad_norm),
            ("num_seeds", self.num_seeds as f64),
        ];
        match numbers.iter().find(|(_, x)| !(*x > 0.0 && x.is_finite())) {
            Some((key, x)) => Err(Error::must_be(key, "> 0 and finite", x)),
            None if self.num_train_epochs.saturating_mul(self.num_seeds) > MOST_EPOCHS => {
                let (epochs, seeds) = (self.num_train_epochs, self.num_seeds);
                Err(Error::input(format!("{epochs} epochs with {seeds} seeds"))
                    .hint(format!(
                        "at most {MOST_EPOCHS} epochs of all seeds together"
                    ))
                    .at_keys(&["num_train_epochs", "num_seeds"]))
            }
            None => Ok(()),
        }
    }

    /// The seeds of the runs.
    pub fn seeds(&self) -> Vec<u64> {
        let following = |i: usize| self.seed.wrapping_add(i as u64);
        (0..self.num_seeds).map(following).collect()
    }

    /// Trains the logits of each prompt on the pairs, shown after each epoch.
    pub fn train(
        &self,
        mut theta: Vec<Vec<f64>>,
        pairs: &[Example],
        seed: u64,
        gradient: impl Fn(&[Vec<f64>], &[Example]) -> Vec<Vec<f64>>,
        mut observe: impl FnMut(usize, &[Vec<f64>]),
    ) -> Vec<Vec<f64>> {
        let mut adam = Adam::new(&theta);
        observe(0, &theta);
        for epoch in 0..self.num_train_epochs {
            let shuffle = self.order == Order::Shuffle;
            let order = epoch_order(pairs.len(), seed, epoch as u64, shuffle);
            for batch in order.chunks(self.batch_size) {
                let batch: Vec<Example> = batch.iter().map(|&index| pairs[index]).collect();
                let mut slope = gradient(&theta, &gathered(&batch));
                clip(&mut slope, self.max_grad_norm);
                adam.step(&mut theta, &slope, self.learning_rate);
            }
            observe(epoch + 1, &theta);
        }
        theta
    }
}

fn clip(gradient: &mut [Vec<f64>], most: f64) {
    let squares = gradient.iter().flatten().map(|g| g * g);
    let norm = squares.sum::<f64>().sqrt();
    if norm > most {
        let entries = gradient.iter_mut().flatten();
        entries.for_each(|g| *g *= most / norm);
    }
}

/// Adam (Kingma and Ba 2015), with PyTorch's defaults.
struct Adam {
    steps: i32,
    moments: Vec<Vec<(f64, f64)>>,
}

impl Adam {
    fn new(theta: &[Vec<f64>]) -> Self {
        let zeros = |row: &Vec<f64>| vec![(0.0, 0.0); row.len()];
        Self {
            steps: 0,
            moments: theta.iter().map(zeros).collect(),
        }
    }

    fn step(&mut self, theta: &mut [Vec<f64>], gradient: &[Vec<f64>], rate: f64) {
        let (beta1, beta2, epsilon) = (0.9f64, 0.999f64, 1e-8);
        self.steps += 1;
        let (bias1, bias2) = (1.0 - beta1.powi(self.steps), 1.0 - beta2.powi(self.steps));
        let moments = self.moments.iter_mut().flatten();
        let entries = theta.iter_mut().flatten().zip(gradient.iter().flatten());
        for ((theta, g), (m, v)) in entries.zip(moments) {
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *theta -= rate * (*m / bias1) / ((*v / bias2).sqrt() + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adams_first_step_is_the_learning_rate() {
        let mut theta = vec![vec![0.0, 1.0]];
        let mut adam = Adam::new(&theta);
        adam.step(&mut theta, &[vec![0.5, -20.0]], 1e-3);
        assert!((theta[0][0] + 1e-3).abs() < 1e-10);
        assert!((theta[0][1] - 1.001).abs() < 1e-10);
    }

    #[test]
    fn gradients_are_clipped_together() {
        let mut gradient = vec![vec![3.0], vec![4.0]];
        clip(&mut gradient, 10.0);
        assert_eq!(gradient, [[3.0], [4.0]]);
        clip(&mut gradient, 1.0);
        assert!((gradient[0][0] - 0.6).abs() < 1e-12 && (gradient[1][0] - 0.8).abs() < 1e-12);
    }
}
