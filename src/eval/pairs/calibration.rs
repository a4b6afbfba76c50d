//! Whether a probability means what it says.
//!
//! A pair counts in both orders alike, so a prediction p of "chosen over rejected" is as good as 1 - p
//! of the other order. Its confidence is max(p, 1 - p), and it is right with the probability that the
//! label gives to the side it is confident of: 1 or 0 for hard labels, one half where p is 1/2.
//!
//! *Why*: with hard labels the outcome is always "chosen", and a table of p against it would show
//! nothing but the base rate, 1.

use serde::Serialize;

use crate::eval::figure::{Draws, Figure};
use crate::loss::math::{sigmoid, softplus};

/// Bins of the reliability table, of equal width from 0.5 to 1.
pub const BINS: usize = 10;

/// Predictions of preference against labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// What was predicted, `sigma(beta h)` or `sigma(d)`.
    pub predicted: &'static str,
    /// Mean of (p - label)^2.
    pub brier: Figure,
    /// Mean of -label log p - (1 - label) log(1 - p), in nats.
    pub log_loss: Figure,
    /// Mean over pairs of |confidence - share right| of their bin. It has no interval: resampling
    /// makes it larger.
    pub expected_calibration_error: f64,
    /// The reliability table; bins that no pair is in have no means.
    pub bins: Vec<Bin>,
}

/// A row of the reliability table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bin {
    /// Confidences from here on.
    pub from: f64,
    /// To here; of the last bin this is inside.
    pub to: f64,
    /// Pairs.
    pub count: usize,
    /// Their mean confidence.
    pub confidence: Option<f64>,
    /// The share that is right.
    pub right: Option<f64>,
}

impl Calibration {
    /// Of the predictions sigma(z) of these log-odds, against p(chosen > rejected).
    pub(super) fn new(
        predicted: &'static str,
        log_odds: &[f64],
        labels: &[f64],
        draws: Draws,
    ) -> Self {
        let both = || log_odds.iter().copied().zip(labels.iter().copied());
        let brier: Vec<f64> = both().map(|(z, y)| (sigmoid(z) - y).powi(2)).collect();
        let log_loss: Vec<f64> = both()
            .map(|(z, y)| weighted(y, softplus(-z)) + weighted(1.0 - y, softplus(z)))
            .collect();
        let mut sums = [(0usize, 0.0, 0.0); BINS];
        for (z, y) in both() {
            let confidence = sigmoid(z.abs());
            let right = match z {
                0.0 => 0.5,
                z if z > 0.0 => y,
                _ => 1.0 - y,
            };
            let bin = ((confidence - 0.5) * 2.0 * BINS as f64) as usize;
            let (count, confidences, rights) = &mut sums[bin.min(BINS - 1)];
            *count += 1;
            *confidences += confidence;
            *rights += right;
        }
        let width = 0.5 / BINS as f64;
        let bins = sums.iter().enumerate().map(|(bin, (count, c, r))| {
            let mean = |sum: f64| (*count > 0).then(|| sum / *count as f64);
            Bin {
                from: 0.5 + bin as f64 * width,
                to: 0.5 + (bin + 1) as f64 * width,
                count: *count,
                confidence: mean(*c),
                right: mean(*r),
            }
        });
        let off = sums.iter().map(|(_, c, r)| (c - r).abs()).sum::<f64>();
        Self {
            predicted,
            brier: Figure::mean(&brier, draws),
            log_loss: Figure::mean(&log_loss, draws),
            expected_calibration_error: off / log_odds.len() as f64,
            bins: bins.collect(),
        }
    }
}

/// Nothing times an infinite loss is nothing.
fn weighted(weight: f64, loss: f64) -> f64 {
    match weight {
        0.0 => 0.0,
        weight => weight * loss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_of_a_pair_count_alike() {
        let draws = Draws::default();
        let (odds, labels) = ([2.0, -0.3, 0.0, 40.0], [1.0, 0.8, 1.0, 0.0]);
        let one = Calibration::new("p", &odds, &labels, draws);
        let other = odds.map(|z| -z);
        let other = Calibration::new("p", &other, &labels.map(|y| 1.0 - y), draws);
        assert_eq!(one.bins, other.bins);
        assert!((one.brier.value - other.brier.value).abs() < 1e-15);
        assert!((one.log_loss.value - other.log_loss.value).abs() < 1e-12);
    }

    #[test]
    fn a_few_predictions_by_hand() {
        let three = 3f64.ln();
        // p = 3/4 twice, once wrong; p = 1/2; p = 1/4 of a label of 1/4.
        let odds = [three, three, 0.0, -three];
        let found = Calibration::new("p", &odds, &[1.0, 0.0, 1.0, 0.25], Draws::default());
        assert!((found.brier.value - (0.0625 + 0.5625 + 0.25) / 4.0).abs() < 1e-15);
        let entropy = 0.75 * (4.0f64 / 3.0).ln() + 0.25 * 4f64.ln();
        let log_loss = ((4.0f64 / 3.0).ln() + 4f64.ln() + 2f64.ln() + entropy) / 4.0;
        assert!((found.log_loss.value - log_loss).abs() < 1e-15);
        let filled: Vec<_> = found.bins.iter().filter(|bin| bin.count > 0).collect();
        assert_eq!(filled.len(), 2);
        assert_eq!((filled[0].count, filled[0].right), (1, Some(0.5)));
        let right = filled[1].right.unwrap();
        assert!((right - (1.0 + 0.0 + 0.75) / 3.0).abs() < 1e-15);
        let error = 0.75 - right;
        assert!((found.expected_calibration_error - 0.75 * error).abs() < 1e-15);
    }

    #[test]
    fn certainty_is_in_the_last_bin_and_no_overflow() {
        let found = Calibration::new("p", &[800.0, -800.0], &[1.0, 0.0], Draws::default());
        assert_eq!(found.bins[BINS - 1].count, 2);
        assert_eq!((found.brier.value, found.log_loss.value), (0.0, 0.0));
    }
}
