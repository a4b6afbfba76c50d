//! APO-down: both responses down, the rejected one further.
//!
//! D'Oosterlinck et al. 2024 (arXiv 2408.06266):
//!
//! ```text
//! L = sigma(beta rho_w) + 1 - sigma(beta h),    h = rho_w - rho_l
//! ```
//!
//! For pairs whose chosen response is worse than what the model writes. rho = log pi(y|x) - log r(y|x).
//!
//! Config: `configs/losses/apo_down.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of APO-down.
    ApoDown {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
    }
}

impl ApoDown {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        (self.beta * w.log_ratio()).sigmoid() + (-self.beta * h).sigmoid()
    }
}

impl Objective for ApoDown {
    fn about(&self) -> About {
        About {
            formula: "L = sigma(beta rho_w) + 1 - sigma(beta h),    h = rho_w - rho_l",
            paper: "D'Oosterlinck et al. 2024 (arXiv 2408.06266)",
            config: "configs/losses/apo_down.toml",
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
