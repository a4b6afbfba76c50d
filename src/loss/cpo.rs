//! CPO: DPO with a uniform reference, and the chosen response as a target.
//!
//! Xu et al. 2024 (arXiv 2401.08417):
//!
//! ```text
//! L = -log sigma(beta d) - alpha log pi(y_w|x) / |y_w|,    d = log pi(y_w|x) - log pi(y_l|x)
//! ```
//!
//! There is no reference. The target's log-prob is a mean per token, as in the authors' code and TRL. The
//! reward is beta log pi(y|x) / |y|.
//!
//! Config: `configs/losses/cpo.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of CPO.
    Cpo {
        /// Scale of the margin.
        beta: f64 = 0.1, in "(0, inf)";
        /// Weight of the target.
        alpha: f64 = 1.0, in "[0, inf)";
    }
}

impl Cpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let d = &w.policy - &l.policy;
        -(self.beta * d).log_sigmoid() - self.alpha * w.mean_log_prob()
    }
}

impl Objective for Cpo {
    fn about(&self) -> About {
        About {
            formula: "L = -log sigma(beta d) - alpha log pi(y_w|x) / |y_w|,    d = log pi(y_w|x) - log pi(y_l|x)",
            paper: "Xu et al. 2024 (arXiv 2401.08417)",
            config: "configs/losses/cpo.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs::pair()
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.mean_log_prob().value)
    }
}
