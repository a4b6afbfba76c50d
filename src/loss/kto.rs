//! KTO: each response is good or bad by itself, judged against a reference point.
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

use super::{About, Context, Dual, Needs, Objective, Response, Role, Scored, knobs};

knobs! {
    /// The knobs of KTO.
    Kto {
        /// How sharply the value saturates.
        beta: f64 = 0.1, in "(0, inf)";
        /// lambda_D, the weight of desirable responses.
        desirable_weight: f64 = 1.0, in "[0, inf)";
        /// lambda_U, the weight of undesirable responses.
        undesirable_weight: f64 = 1.0, in "[0, inf)";
        /// Rows per group in which answers rotate to give each row its y'; the whole dataset if not
        /// set. TRL rotates within its per-device batch, to the previous row.
        mismatch_group: Option<usize> = None, in "[2, inf)";
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
            knobs: Self::KNOBS,
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

    fn evaluate(&self, example: &Scored, batch: &Context) -> Dual {
        let rows: Vec<Dual> = example
            .responses
            .iter()
            .filter_map(|y| self.loss(y, batch.z0))
            .collect();
        assert!(!rows.is_empty(), "the example does not meet Kto::needs");
        let count = rows.len() as f64;
        rows.into_iter().fold(example.zero(), |sum, row| sum + row) / count
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }

    /// z0: first the mean over the mismatched responses of each example, then over the examples.
    fn context(&self, batch: &[Scored]) -> Context {
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
        Context {
            z0,
            ..Context::default()
        }
    }

    /// `kl`: z0, the same for every example of the batch.
    fn diagnostics(&self, _example: &Scored, batch: &Context) -> Vec<(&'static str, f64)> {
        vec![("kl", batch.z0)]
    }
}
