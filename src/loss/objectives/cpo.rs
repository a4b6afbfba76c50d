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
//! Config: `configs/losses/cpo.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{
    Contract, D, LENGTH, REFERENCE, Settings, Step0, sigmoid, softplus,
};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, Needs, PairLoss, Range, Response};

knobs! {
    /// The knobs of CPO.
    Cpo {
        /// Scale of the margin.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// Weight of the target.
        alpha: f64 = 1.0, in Range::NON_NEGATIVE;
    }
}

impl PairLoss for Cpo {
    const ABOUT: About = About {
        formula: "L = -log sigma(beta d) - alpha log pi(y_w|x) / |y_w|,    d = log pi(y_w|x) - log pi(y_l|x)",
        paper: "Xu et al. 2024 (arXiv 2401.08417)",
        config: "configs/losses/cpo.toml",
    };

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        let d = &w.policy - &l.policy;
        -(self.beta * d).log_sigmoid() - self.alpha * w.mean_log_prob()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.mean_log_prob().value
    }

    fn needs(&self) -> Needs {
        Needs::pair()
    }
}

#[cfg(test)]
impl Contract for Cpo {
    fn step_0(&self) -> Step0 {
        let slope = self.beta * sigmoid(-self.beta * D);
        Step0 {
            value: softplus(-self.beta * D) - self.alpha * REFERENCE[0] / LENGTH,
            chosen: -slope - self.alpha / LENGTH,
            rejected: slope,
        }
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("alpha", "0")]]
    }
}
