//! Whether an update would leave weights that are not finite, found out before it is made.
//!
//! *Why*: an update is in place, so a weight that overflows cannot be taken back, and looking at all
//! weights again would cost a pass. A bound on what an update can do costs nothing: it is far below the
//! largest f32 for every learning rate that anybody trains with. Only where it is not, each parameter
//! is updated in a copy and looked at.

use std::iter::once;

use candle_core::Device;

use super::{Optimizer, Rule};
use crate::error::Result;
use crate::kernels::device::{download, from_host};
use crate::kernels::optimizer::{self as kernel, Decayed, Weights};
use crate::model::parameters::Params;

/// The largest magnitude that a weight may get: above the largest bf16 there is no rounding to one.
const LARGEST: f64 = 3.38e38;

/// Of an update that was tried out.
pub(super) struct Tried {
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
        let (keep, rate, epsilon) = match self {
            Self::Adam(adam) => {
                let corrected = adam.rate / (1.0 - adam.beta1.powf(adam.step as f64));
                (1.0 - adam.rate * adam.weight_decay, corrected, adam.epsilon)
            }
            Self::RmsProp(rmsprop) => (1.0, rmsprop.rate, rmsprop.epsilon),
        };
        // What is not trained keeps its magnitude.
        let keep = keep.abs().max(1.0);
        if !fits(rate) || !fits(keep) {
            return f64::INFINITY;
        }
        // The root under the mean is left out, and rounding to f32 is let in.
        (keep * weights + rate * mean / epsilon) * (1.0 + 1e-6)
    }
}

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
        let frozen = weights.values(gradients.layout().len..weights.layout().len)?;
        let magnitude = |x: &f32| f64::from(x.abs());
        let most = |values: &[f32]| values.iter().map(magnitude).fold(0.0, f64::max);
        tried.largest = most(&frozen);
        for (id, entry) in gradients.layout().entries.iter().enumerate() {
            let n = entry.range.len();
            let copy = |values: Vec<f32>| from_host(&values, n, &Device::Cpu);
            let part = |params: &Params| copy(params.values(entry.range.clone())?);
            let gradient = copy(download(&gradients.view(id).flatten_all()?)?)?;
            let (mut updated, mut square) = (part(weights)?, part(&self.square)?);
            let mut mean = part(self.mean.as_ref().unwrap_or(&self.square))?;
            let (plain, gradient) = (Weights::Plain((&mut updated).into()), (&gradient, scale));
            match rule {
                Rule::Adam(adam) => {
                    let decayed = once(0..n).filter(|_| entry.decay).collect();
                    let decayed = Decayed::new(decayed, &Device::Cpu)?;
                    let moments = ((&mut mean).into(), (&mut square).into());
                    kernel::adam(adam, &decayed, plain, moments, gradient)?;
                }
                Rule::RmsProp(rmsprop) => {
                    kernel::rmsprop(rmsprop, plain, (&mut square).into(), gradient)?;
                }
            }
            let updated = download(&updated)?;
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
    fn what_may_overflow_is_tried_out() {
        assert!(!fits(adam(1e38, 1).largest(0.0, 0.0)));
        assert!(!fits(adam(1e31, 100).largest(0.0, 1.0)));
        assert!(!fits(adam(1e-6, 1).largest(3.4e38, 0.0)));
        assert!(!fits(f64::NAN) && !fits(f64::INFINITY));
    }
}
