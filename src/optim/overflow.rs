//! Whether an update would leave weights that are not finite, found out before it is made.
//!
//! *Why*: an update is in place, so a weight that overflows cannot be taken back, and looking at all
//! weights again would cost a pass. A bound on what an update can do costs nothing: it is far below the
//! largest f32 for every learning rate that anybody trains with. Only where it is not, each parameter
//! is updated in a copy and looked at.

use std::sync::Arc;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::places::{placed, within};
use super::{Optimizer, Rule};
use crate::error::Result;
use crate::kernels::device::download;
use crate::model::parameters::Params;

/// The largest magnitude that a weight may get: above the largest bf16 there is no rounding to one.
const LARGEST: f64 = 3.38e38;

/// Of an update that was tried out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tried {
    /// The parameters that would get a value that is not finite.
    pub overflows: Vec<String>,
    /// At least the magnitude of every weight after it.
    pub largest: f64,
}

/// Whether values of at most this magnitude are finite in every type that weights have.
pub(super) fn fits(largest: f64) -> bool {
    largest <= LARGEST
}

impl Rule {
    /// At least the magnitude of every weight after this update, of weights and a mean of gradients of at
    /// most these; infinite where a constant of the update overflows.
    pub(super) fn largest(&self, weights: f64, mean: f64) -> f64 {
        // What is left of a weight, and the most that is added to it: of Adam and RMSprop without the
        // root under the mean.
        let (keep, rate, most) = match self {
            Self::Adam(adam) => {
                let corrected = adam.rate / (1.0 - adam.beta1.powf(adam.step as f64));
                let most = corrected * mean / adam.epsilon;
                (1.0 - adam.rate * adam.weight_decay, corrected, most)
            }
            Self::RmsProp(rmsprop) => (1.0, rmsprop.rate, rmsprop.rate * mean / rmsprop.epsilon),
            Self::Lion(lion) => (1.0 - lion.rate * lion.weight_decay, lion.rate, lion.rate),
            Self::Muon(muon, adam) => {
                let rest = Self::Adam(*adam).largest(weights, mean);
                let most = (rest - weights).max(0.0) + muon.most();
                (1.0 - muon.rate * muon.weight_decay, muon.rate, most)
            }
        };
        // What is not trained keeps its magnitude.
        let keep = keep.abs().max(1.0);
        if !fits(rate) || !fits(keep) {
            return f64::INFINITY;
        }
        // Rounding to f32 is let in.
        (keep * weights + most) * (1.0 + 1e-6)
    }
}

/// Frozen elements looked at at a time.
const PIECE: usize = 1 << 20;

impl Optimizer {
    /// Makes an update in copies, in f32, one parameter at a time.
    pub(super) fn try_out(
        &self,
        rule: &Rule,
        weights: &Params,
        (gradients, scale): (&Params, f64),
    ) -> Result<Tried> {
        let mut tried = Tried {
            overflows: Vec::new(),
            largest: 0.0,
        };
        let magnitude = |x: &f32| f64::from(x.abs());
        let most = |values: &[f32]| values.iter().map(magnitude).fold(0.0, f64::max);
        let (trained, all) = (gradients.layout().len, weights.layout().len);
        for start in (trained..all).step_by(PIECE) {
            let frozen = weights.values(start..all.min(start + PIECE))?;
            tried.largest = tried.largest.max(most(&frozen));
        }
        for entry in within(gradients.layout(), &self.piece) {
            let alone = Arc::new(placed(vec![entry.clone()]));
            let mut moments = self.moments.of(self.config.optim, &alone)?;
            let copy = |values: &[f32]| {
                let mut copied = Params::zeros(alone.clone(), DType::F32, &Device::Cpu)?;
                copied.set(0, values).map(|()| copied)
            };
            let mut updated = copy(&weights.values(entry.range.clone())?)?;
            let range = &entry.range;
            let gradient = gradients.flat().narrow(0, range.start, range.len())?;
            let gradient = copy(&download(&gradient)?)?;
            let n = entry.range.len();
            moments.update(rule, updated.updated(n)?, (&gradient, scale), &(0..n))?;
            let updated = updated.values(0..n)?;
            match updated.iter().all(|x| fits(magnitude(x))) {
                true => tried.largest = tried.largest.max(most(&updated)),
                false => tried.overflows.push(entry.name.clone()),
            }
        }
        Ok(tried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::optimizer::Adam;

    fn adam(rate: f64, step: u64) -> Rule {
        Rule::Adam(Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            rate,
            weight_decay: 0.1,
            step,
        })
    }

    #[test]
    fn rates_that_people_train_with_are_never_tried_out() {
        // Without clipping, at the largest gradients that an update is made with.
        let mut largest = 1e4;
        for step in 1..100_000 {
            largest = adam(1e-2, step).largest(largest, super::super::LARGEST_NORM);
            assert!(fits(largest), "{step}: {largest}");
        }
    }

    #[test]
    fn a_sign_moves_a_weight_by_the_rate() {
        let lion = Rule::Lion(crate::kernels::optimizer::Lion {
            beta1: 0.9,
            beta2: 0.99,
            rate: 1e-3,
            weight_decay: 0.0,
            step: 1,
        });
        let largest = lion.largest(2.0, 1e18);
        assert!((largest - 2.001).abs() < 1e-5, "{largest}");
    }

    #[test]
    fn what_may_overflow_is_tried_out() {
        assert!(!fits(adam(1e38, 1).largest(0.0, 0.0)));
        assert!(!fits(adam(1e31, 100).largest(0.0, 1.0)));
        assert!(!fits(adam(1e-6, 1).largest(3.4e38, 0.0)));
        assert!(!fits(f64::NAN) && !fits(f64::INFINITY));
    }
}
