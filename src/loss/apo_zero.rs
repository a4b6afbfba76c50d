//! APO-zero: chosen up, rejected down, each against the reference.
//!
//! D'Oosterlinck et al. 2024 (arXiv 2408.06266):
//!
//! ```text
//! L = 1 - sigma(beta rho_w) + sigma(beta rho_l),    rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! For pairs whose chosen response is better than what the model writes.
//!
//! Config: `configs/losses/apo_zero.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of APO-zero.
    ApoZero {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
    }
}

impl ApoZero {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        (-self.beta * w.log_ratio()).sigmoid() + (self.beta * l.log_ratio()).sigmoid()
    }
}

impl Objective for ApoZero {
    fn about(&self) -> About {
        About {
            formula: "L = 1 - sigma(beta rho_w) + sigma(beta rho_l),    rho = log pi(y|x) - log r(y|x)",
            paper: "D'Oosterlinck et al. 2024 (arXiv 2408.06266)",
            config: "configs/losses/apo_zero.toml",
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
