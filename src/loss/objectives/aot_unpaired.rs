//! AOT without pairs: the chosen responses as a distribution against the rejected ones.
//!
//! Melnyk et al. 2024 (arXiv 2406.05882):
//!
//! ```text
//! L = -(1 - eps) log sigma(beta z) - eps log sigma(-beta z)
//! z = sort(rho_w)_k - sort(rho_l)_k,    k a rank in the optimizer-step batch
//! ```
//!
//! rho = log pi(y|x) - log r(y|x). The k-th of the chosen responses meets the k-th of the rejected ones,
//! which are of two examples: each of them reports half of that term and has the gradient of its own
//! response, so that the batch means of loss and gradient are those of the formula.
//!
//! Config: `configs/losses/aot_unpaired.toml`. Oracle: `tests/losses/field.rs`.

use super::aot::ranks;
#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::pair::smoothed;
use crate::loss::{About, Dual, Needs, Objective, Prepared, Range, Response, Role, Scored};

knobs! {
    /// The knobs of unpaired AOT.
    AotUnpaired {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// eps, the assumed share of flipped labels.
        label_smoothing: f64 = 0.0, in Range::closed(0.0, 0.5);
    }
}

impl AotUnpaired {
    /// The loss of two responses of the same rank.
    fn loss(&self, z: Dual) -> Dual {
        smoothed(self.beta * z, self.label_smoothing)
    }
}

impl Objective for AotUnpaired {
    fn about(&self) -> About {
        About {
            formula: "\
L = -(1 - eps) log sigma(beta z) - eps log sigma(-beta z)
z = sort(rho_w)_k - sort(rho_l)_k,    k a rank in the optimizer-step batch",
            paper: "Melnyk et al. 2024 (arXiv 2406.05882)",
            config: "configs/losses/aot_unpaired.toml",
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            batch: &[Role::Chosen, Role::Rejected],
            soft_labels: false,
            ..Needs::referenced_pair()
        }
    }

    /// Of each pair the log-ratios that its chosen and its rejected response meet: those of the same
    /// rank on the other side.
    fn prepare(&self, batch: &[Scored]) -> Prepared {
        let pairs = || batch.iter().map(Scored::expect_pair);
        let chosen: Vec<f64> = pairs().map(|(w, _)| w.log_ratio().value).collect();
        let rejected: Vec<f64> = pairs().map(|(_, l)| l.log_ratio().value).collect();
        let sorted = |values: &[f64]| {
            let mut values = values.to_vec();
            values.sort_by(f64::total_cmp);
            values
        };
        let (low_to_high_w, low_to_high_l) = (sorted(&chosen), sorted(&rejected));
        let ranks = ranks(&chosen).into_iter().zip(ranks(&rejected));
        Prepared::of_examples(ranks.map(|(w, l)| vec![low_to_high_l[w], low_to_high_w[l]]))
    }

    fn evaluate(&self, example: &Scored, statistics: &[f64]) -> Dual {
        let (w, l) = example.expect_pair();
        let (of_w, of_l) = (statistics[0], statistics[1]);
        let mut terms = self.loss(w.log_ratio() - of_w) + self.loss(of_l - l.log_ratio());
        terms.value /= 2.0;
        terms
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }
}

#[cfg(test)]
impl Contract for AotUnpaired {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(LOG_2, -self.beta * (0.5 - self.label_smoothing))
    }

    /// The other half of the value is that of another example.
    fn value_share(&self) -> f64 {
        0.5
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("label_smoothing", "0.2")]]
    }
}
