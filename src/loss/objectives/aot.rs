//! AOT on pairs: the margins of the policy as a distribution against those of the reference.
//!
//! Melnyk et al. 2024 (arXiv 2406.05882):
//!
//! ```text
//! L = -(1 - eps) log sigma(beta z) - eps log sigma(-beta z)
//! z = sort(d)_k - sort(d_r)_k,    k the rank of the pair in the optimizer-step batch
//! d = log pi(y_w|x) - log pi(y_l|x),    d_r = log r(y_w|x) - log r(y_l|x)
//! ```
//!
//! Sorted against sorted is optimal transport in one dimension: the policy's margins are to dominate the
//! reference's as a distribution, not pair by pair. The sort is over the whole optimizer-step batch,
//! whatever its micro-batches.
//!
//! Config: `configs/losses/aot.toml`. Oracle: `tests/losses/field.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::pair::{policy_logit, reference_logit, smoothed};
use crate::loss::{About, Dual, Needs, Objective, Prepared, Range, Response, Role, Scored};

knobs! {
    /// The knobs of AOT.
    Aot {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// eps, the assumed share of flipped labels.
        label_smoothing: f64 = 0.0, in Range::closed(0.0, 0.5);
    }
}

impl Aot {
    /// The loss of a pair against the reference's margin of the same rank.
    pub fn loss(&self, w: &Response, l: &Response, reference: f64) -> Dual {
        let z = policy_logit(w, l, false) - reference;
        smoothed(self.beta * z, self.label_smoothing)
    }
}

impl Objective for Aot {
    fn about(&self) -> About {
        About {
            formula: "\
L = -(1 - eps) log sigma(beta z) - eps log sigma(-beta z)
z = sort(d)_k - sort(d_r)_k,    k the rank of the pair in the optimizer-step batch
d = log pi(y_w|x) - log pi(y_l|x),    d_r = log r(y_w|x) - log r(y_l|x)",
            paper: "Melnyk et al. 2024 (arXiv 2406.05882)",
            config: "configs/losses/aot.toml",
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            batch: &[Role::Chosen, Role::Rejected],
            soft_labels: false,
            ..Needs::referenced_pair()
        }
    }

    /// Of each pair the reference's margin of the same rank.
    fn prepare(&self, batch: &[Scored]) -> Prepared {
        let pairs: Vec<_> = batch.iter().map(Scored::expect_pair).collect();
        let policy: Vec<f64> = pairs
            .iter()
            .map(|(w, l)| policy_logit(w, l, false).value)
            .collect();
        let mut reference: Vec<f64> = pairs
            .iter()
            .map(|(w, l)| reference_logit(w, l, false))
            .collect();
        reference.sort_by(f64::total_cmp);
        let matched = |rank: usize| vec![reference[rank]];
        Prepared::of_examples(ranks(&policy).into_iter().map(matched))
    }

    fn evaluate(&self, example: &Scored, statistics: &[f64]) -> Dual {
        let (w, l) = example.expect_pair();
        self.loss(w, l, statistics[0])
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }
}

/// The rank of each value, from 0; of equal values the earlier one is lower.
pub(super) fn ranks(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0; values.len()];
    for (rank, index) in order.into_iter().enumerate() {
        ranks[index] = rank;
    }
    ranks
}

#[cfg(test)]
impl Contract for Aot {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(LOG_2, -self.beta * (0.5 - self.label_smoothing))
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("label_smoothing", "0.2")]]
    }
}
