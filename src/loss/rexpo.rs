//! rEXPO, the regression form of EXPO.
//!
//! EXPO eq. 17 and 19, Proposition 4.1:
//!
//! ```text
//! L = (sigma(d) - [lambda sigma(d_r) + (1 - lambda) p])^2
//! d = log pi(y_w|x) - log pi(y_l|x),    d_r = log r(y_w|x) - log r(y_l|x)
//! ```
//!
//! The policy's own preference is regressed on a blend of the reference's preference and the
//! label's probability p, which is 1 for a hard label. At lambda = 0 the target is the label, at
//! lambda = 1 it is the reference.
//!
//! Config: `configs/hh_expo_reg.toml`. Oracle: `tests/losses.rs`, `expo_losses_agree_with_60_digits`.

use super::dual::sigmoid;
use super::{
    Context, Dual, Needs, Objective, Response, Role, Scored, at_least_zero, sample_diagnostics,
    within_unit,
};
use super::{logit_diagnostics, policy_logit, reference_logit};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// The knobs of rEXPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rexpo {
    /// Share of the reference in the target, in [0, 1]. The paper has 0.2 on HH, 0.01 on IMDb.
    pub lambda: f64,
    /// m in nats, in [0, inf): d - m stands in place of d.
    pub margin: f64,
    /// Whether d and d_r are differences of log-probs per token instead of their sums.
    pub length_normalized: bool,
}

impl Default for Rexpo {
    fn default() -> Self {
        Self {
            lambda: 0.2,
            margin: 0.0,
            length_normalized: false,
        }
    }
}

impl Rexpo {
    /// The loss of a pair whose first response is preferred with probability `p`.
    pub fn loss(&self, w: &Response, l: &Response, p: f64) -> Dual {
        let d = policy_logit(w, l, self.length_normalized) - self.margin;
        let d_r = reference_logit(w, l, self.length_normalized);
        let target = |reference: f64, label: f64| {
            self.lambda * sigmoid(reference) + (1.0 - self.lambda) * label
        };
        // Both are the same number; the side whose sigma is below 1/2 keeps its digits.
        let residual = if d.value > 0.0 {
            target(-d_r, 1.0 - p) - (-d).sigmoid()
        } else {
            d.sigmoid() - target(d_r, p)
        };
        residual.square()
    }
}

impl Objective for Rexpo {
    fn needs(&self) -> Needs {
        Needs {
            reference: true,
            optional: &[Role::Sampled],
            ..Needs::pair()
        }
    }

    fn validate(&self) -> Result<()> {
        within_unit("lambda", self.lambda)?;
        at_least_zero("margin", self.margin)
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        let (w, l) = example.expect_pair();
        self.loss(w, l, example.preference.unwrap_or(1.0))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(response.log_ratio().value)
    }

    fn diagnostics(&self, example: &Scored, _batch: &Context) -> Vec<(&'static str, f64)> {
        let mut figures = logit_diagnostics(example, self.length_normalized, self.margin);
        figures.extend(sample_diagnostics(example));
        figures
    }
}
