//! R-DPO: DPO with a penalty on length.
//!
//! Park et al. 2024 (arXiv 2403.19159):
//!
//! ```text
//! L = -log sigma(beta h + alpha (|y_w| - |y_l|)),    h = rho_w - rho_l
//! ```
//!
//! rho = log pi(y|x) - log r(y|x). A chosen response that is longer counts as explained in part by its
//! length.
//!
//! Config: `configs/losses/rdpo.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of R-DPO.
    Rdpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// Nats per token of difference in length.
        alpha: f64 = 0.01, in "[0, inf)";
    }
}

impl Rdpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        -(self.alpha * (w.tokens - l.tokens) + self.beta * h).log_sigmoid()
    }
}

impl Objective for Rdpo {
    fn about(&self) -> About {
        About {
            formula: "L = -log sigma(beta h + alpha (|y_w| - |y_l|)),    h = rho_w - rho_l",
            paper: "Park et al. 2024 (arXiv 2403.19159)",
            config: "configs/losses/rdpo.toml",
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
