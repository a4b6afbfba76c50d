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

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of SimPO.
    Simpo {
        /// Scale of the reward.
        beta: f64 = 2.0, in "(0, inf)";
        /// Target reward margin.
        gamma: f64 = 1.0, in "[0, inf)";
    }
}

impl Simpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let margin = w.mean_log_prob() - l.mean_log_prob();
        -(self.beta * margin - self.gamma).log_sigmoid()
    }
}

impl Objective for Simpo {
    fn about(&self) -> About {
        About {
            formula: "L = -log sigma(beta (abar_w - abar_l) - gamma),    abar = log pi(y|x) / |y|",
            paper: "EXPO app. A.1, C.2; Meng et al. 2024, eq. 6",
            config: "configs/hh_simpo.toml",
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
