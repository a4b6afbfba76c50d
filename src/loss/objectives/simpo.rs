//! SimPO: no reference, log-probs per token, and a target margin.
//!
//! Meng et al. 2024, eq. 6; EXPO appendices A.1 and C.2:
//!
//! ```text
//! L = -log sigma(beta (abar_w - abar_l) - gamma),    abar = log pi(y|x) / |y|
//! ```
//!
//! gamma is subtracted after beta has multiplied, as in the paper; where a source quotes the ratio
//! gamma / beta, give beta times that ratio.
//!
//! Config: `configs/hh_simpo.toml`. Oracle: `tests/losses.rs`, `losses_agree_with_their_peers`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, D, LENGTH, Step0, sigmoid, softplus};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, MarginLoss, Needs, Range, Response};

knobs! {
    /// The knobs of SimPO.
    Simpo {
        /// Scale of the reward.
        beta: f64 = 2.0, in Range::POSITIVE;
        /// Target reward margin.
        gamma: f64 = 1.0, in Range::NON_NEGATIVE;
    }
}

impl MarginLoss for Simpo {
    const ABOUT: About = About {
        formula: "L = -log sigma(beta (abar_w - abar_l) - gamma),    abar = log pi(y|x) / |y|",
        paper: "EXPO app. A.1, C.2; Meng et al. 2024, eq. 6",
        config: "configs/hh_simpo.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        -(self.beta * margin - self.gamma).log_sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.mean_log_prob().value
    }

    fn margin(&self, w: &Response, l: &Response) -> Dual {
        w.mean_log_prob() - l.mean_log_prob()
    }

    fn needs(&self) -> Needs {
        Needs::pair()
    }
}

#[cfg(test)]
impl Contract for Simpo {
    fn step_0(&self) -> Step0 {
        let x = self.beta * D / LENGTH - self.gamma;
        Step0::of_margin(softplus(-x), -sigmoid(-x) * self.beta / LENGTH)
    }
}
