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

#[cfg(test)]
use crate::loss::contract_tests::{Contract, D, LENGTH, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::math::sigmoid;
use crate::loss::pair::{logit_diagnostics, policy_logit, reference_logit, sample_diagnostics};
use crate::loss::{About, Dual, Needs, Objective, Range, Response, Role, Scored};

knobs! {
    /// The knobs of rEXPO.
    Rexpo {
        /// Share of the reference in the target; the paper has 0.2 on HH, 0.01 on IMDb.
        lambda: f64 = 0.2, in Range::closed(0.0, 1.0);
        /// m in nats: d - m stands in place of d.
        margin: f64 = 0.0, in Range::NON_NEGATIVE;
        /// Whether d and d_r are differences of log-probs per token instead of their sums.
        length_normalized: bool = false;
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
    fn about(&self) -> About {
        About {
            formula: "\
L = (sigma(d - m) - [lambda sigma(d_r) + (1 - lambda) p])^2
d = log pi(y_w|x) - log pi(y_l|x),    d_r = log r(y_w|x) - log r(y_l|x)",
            paper: "EXPO eq. 17, 19, Prop. 4.1",
            config: "configs/hh_expo_reg.toml",
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            optional: &[Role::Sampled],
            ..Needs::referenced_pair()
        }
    }

    fn evaluate(&self, example: &Scored, _statistics: &[f64]) -> Dual {
        let (w, l) = example.expect_pair();
        self.loss(w, l, example.preference.unwrap_or(1.0))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(response.log_ratio().value)
    }

    fn diagnostics(&self, example: &Scored, _statistics: &[f64]) -> Vec<(&'static str, f64)> {
        let mut figures = logit_diagnostics(example, self.length_normalized, self.margin);
        figures.extend(sample_diagnostics(example));
        figures
    }
}

#[cfg(test)]
impl Contract for Rexpo {
    fn step_0(&self) -> Step0 {
        let sigma = crate::loss::contract_tests::sigmoid;
        let length = if self.length_normalized { LENGTH } else { 1.0 };
        let x = D / length;
        let residual = sigma(x - self.margin) - self.lambda * sigma(x) - (1.0 - self.lambda);
        if self.margin == 0.0 {
            let closed = ((1.0 - self.lambda) * sigma(-x)).powi(2);
            assert!((closed - residual * residual).abs() < 1e-15);
        }
        let slope = sigma(x - self.margin) * sigma(self.margin - x) / length;
        Step0::of_margin(residual * residual, 2.0 * residual * slope)
    }

    /// A margin in the policy's term only has a direction.
    fn is_symmetric(&self) -> bool {
        self.margin == 0.0
    }

    fn variants(&self) -> &'static [Settings] {
        &[
            &[("lambda", "0")],
            &[("lambda", "1")],
            &[("length_normalized", "true"), ("margin", "0.5")],
        ]
    }
}
