//! DPO-Positive: DPO that does not let the chosen response become less likely.
//!
//! Pal et al. 2024 (Smaug, arXiv 2402.13228):
//!
//! ```text
//! L = -log sigma(beta (h - kappa max(0, -rho_w))),    h = rho_w - rho_l
//! ```
//!
//! rho = log pi(y|x) - log r(y|x). kappa is the paper's lambda. At rho_w = 0, where training starts, the
//! slope of the maximum is 0.
//!
//! Config: `configs/losses/dpop.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of DPO-Positive.
    Dpop {
        /// Weight of the KL to the reference.
        beta: f64 = 0.3, in "(0, inf)";
        /// Weight of the penalty.
        kappa: f64 = 50.0, in "[0, inf)";
    }
}

impl Dpop {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let rho = w.log_ratio();
        let penalty = self.kappa * (-rho.clone()).relu();
        -(self.beta * (rho - l.log_ratio() - penalty)).log_sigmoid()
    }
}

impl Objective for Dpop {
    fn about(&self) -> About {
        About {
            formula: "L = -log sigma(beta (h - kappa max(0, -rho_w))),    h = rho_w - rho_l",
            paper: "Pal et al. 2024 (arXiv 2402.13228)",
            config: "configs/losses/dpop.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs::referenced_pair()
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }
}
