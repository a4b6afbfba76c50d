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

use super::{Context, Dual, Needs, Objective, Response, Scored, at_least_zero, expected, positive};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// The knobs of SimPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Simpo {
    /// Scale of the reward, in (0, inf).
    pub beta: f64,
    /// Target reward margin, in [0, inf).
    pub gamma: f64,
}

impl Default for Simpo {
    fn default() -> Self {
        Self {
            beta: 2.0,
            gamma: 1.0,
        }
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
    fn needs(&self) -> Needs {
        Needs::pair()
    }

    fn validate(&self) -> Result<()> {
        positive("beta", self.beta)?;
        at_least_zero("gamma", self.gamma)
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.mean_log_prob().value)
    }
}
