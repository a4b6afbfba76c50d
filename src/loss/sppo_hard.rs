//! SPPO with hard labels: self-play regression of each log-ratio on its win rate.
//!
//! Wu et al. 2024 (arXiv 2405.00675):
//!
//! ```text
//! L = (rho_w - 1 / (2 beta))^2 + (rho_l + 1 / (2 beta))^2,    rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! The target eta (P - 1/2) of the paper at P = 1 and P = 0, with eta = 1 / beta; the paper has eta = 1000,
//! that is beta = 0.001.
//!
//! Config: `configs/losses/sppo_hard.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of SPPO.
    SppoHard {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
    }
}

impl SppoHard {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let target = 1.0 / (2.0 * self.beta);
        (w.log_ratio() - target).square() + (l.log_ratio() - -target).square()
    }
}

impl Objective for SppoHard {
    fn about(&self) -> About {
        About {
            formula: "L = (rho_w - 1 / (2 beta))^2 + (rho_l + 1 / (2 beta))^2,    rho = log pi(y|x) - log r(y|x)",
            paper: "Wu et al. 2024 (arXiv 2405.00675)",
            config: "configs/losses/sppo_hard.toml",
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
