//! KTO: each response is good or bad on its own, judged against a reference point.
//!
//! Ethayarajh et al. 2024, eq. 8; EXPO appendices A.1 and C.2:
//!
//! ```text
//! desirable    L = lambda_D (1 - sigma(beta (rho - z0)))
//! undesirable  L = lambda_U (1 - sigma(beta (z0 - rho)))
//! rho = log pi(y|x) - log r(y|x)
//! z0  = max(0, mean over the batch of log pi(y'|x) - log r(y'|x)),    y' an answer to another prompt
//! ```
//!
//! z0 estimates KL(pi || r) and carries no gradient. A pair is one row of each kind and its loss
//! is their mean, so that the batch mean over pairs is the mean over such rows.
//!
//! Config: `configs/hh_kto.toml`. Oracle: `tests/losses.rs`, `kto_agrees_with_trl`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, Needs, Objective, Prepared, Range, Response, Role, Scored};

knobs! {
    /// The knobs of KTO.
    Kto {
        /// How sharply the value saturates.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// lambda_D, the weight of desirable responses.
        desirable_weight: f64 = 1.0, in Range::NON_NEGATIVE;
        /// lambda_U, the weight of undesirable responses.
        undesirable_weight: f64 = 1.0, in Range::NON_NEGATIVE;
        /// Rows per group in which answers rotate to give each row its y'; the whole dataset if not
        /// set. TRL rotates within its per-device batch, to the previous row.
        mismatch_group: Option<usize> = None, in Range::closed_open(2.0, f64::INFINITY);
    }
}

impl Kto {
    /// The loss of one desirable (chosen) or undesirable (rejected) response; `None` for others.
    pub fn loss(&self, y: &Response, z0: f64) -> Option<Dual> {
        // 1 - sigma(x) as sigma(-x), which keeps its digits.
        match y.role {
            Role::Chosen => {
                let value = self.beta * (z0 - y.log_ratio());
                Some(self.desirable_weight * value.sigmoid())
            }
            Role::Rejected => {
                let value = self.beta * (y.log_ratio() - z0);
                Some(self.undesirable_weight * value.sigmoid())
            }
            Role::Sampled | Role::Mismatched => None,
        }
    }
}

impl Objective for Kto {
    fn about(&self) -> About {
        About {
            formula: "\
desirable    L = lambda_D (1 - sigma(beta (rho - z0)))
undesirable  L = lambda_U (1 - sigma(beta (z0 - rho)))
z0 = max(0, mean over the batch of log pi(y'|x) - log r(y'|x)),
y' an answer to another prompt",
            paper: "EXPO app. A.1, C.2; Ethayarajh et al. 2024, eq. 8",
            config: "configs/hh_kto.toml",
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            all: &[],
            any: &[Role::Chosen, Role::Rejected],
            batch: &[Role::Mismatched],
            mismatch_group: self.mismatch_group,
            reference: true,
            soft_labels: false,
            ..Needs::pair()
        }
    }

    /// z0: first the mean over the mismatched responses of each example, then over the examples.
    fn prepare(&self, batch: &[Scored]) -> Prepared {
        let means: Vec<f64> = batch
            .iter()
            .filter_map(|example| {
                let ratios = || example.of(Role::Mismatched).map(|y| y.log_ratio().value);
                let count = ratios().count();
                (count > 0).then(|| ratios().sum::<f64>() / count as f64)
            })
            .collect();
        let kl = means.iter().sum::<f64>() / means.len().max(1) as f64;
        // Not f64::max, which would turn a NaN into 0.
        let z0 = if kl < 0.0 { 0.0 } else { kl };
        Prepared::of_batch([z0])
    }

    fn evaluate(&self, example: &Scored, statistics: &[f64]) -> Dual {
        let z0 = statistics[0];
        let rows: Vec<Dual> = example
            .responses
            .iter()
            .filter_map(|y| self.loss(y, z0))
            .collect();
        assert!(!rows.is_empty(), "the example does not meet Kto::needs");
        let count = rows.len() as f64;
        rows.into_iter().fold(example.zero(), |sum, row| sum + row) / count
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }

    /// `kl`: z0, the same for every example of the batch.
    fn diagnostics(&self, _example: &Scored, statistics: &[f64]) -> Vec<(&'static str, f64)> {
        vec![("kl", statistics[0])]
    }
}

#[cfg(test)]
impl Contract for Kto {
    fn step_0(&self) -> Step0 {
        let half = (self.desirable_weight + self.undesirable_weight) / 2.0;
        let slope = |weight: f64| self.beta * weight / 8.0;
        Step0 {
            value: half / 2.0,
            chosen: -slope(self.desirable_weight),
            rejected: slope(self.undesirable_weight),
        }
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("undesirable_weight", "1.33")]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z0_is_a_mean_of_means_never_negative_and_never_hides_nan() {
        let row = |ratios: &[f64]| {
            let mut responses = vec![(Role::Chosen, -5.0, -5.0, 3.0)];
            let mismatched = |r: &f64| (Role::Mismatched, r - 9.0, -9.0, 3.0);
            responses.extend(ratios.iter().map(mismatched));
            Scored::new(&responses, None)
        };
        let z0 = |batch: &[Scored]| Kto::default().prepare(batch).of(0)[0];
        assert_eq!(z0(&[row(&[1.0, 3.0]), row(&[4.0]), row(&[])]), 3.0);
        assert_eq!(z0(&[row(&[-4.0])]), 0.0);
        assert_eq!(z0(&[row(&[])]), 0.0);
        assert!(z0(&[row(&[f64::NAN])]).is_nan());
    }
}
