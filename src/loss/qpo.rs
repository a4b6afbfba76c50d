//! QPO: the family of the EXPO papers, a quasi-convex function of a difference of divergence scores.
//!
//! EXPO and TYPO:
//!
//! ```text
//! L = psi(mu(y_w) - mu(y_l), lambda),    lambda = beta
//! psi  ipo: (x - 1 / (2 beta))^2,    or f(beta x) with f one of the shapes of GPO
//! mu   S of a divergence: reverse KL, forward KL, Jensen-Shannon, alpha
//! ```
//!
//! DPO, IPO, GPO and f-DPO are members, which the tests show. EXPO is none: Theorem 3.1 of its paper is
//! about what this family cannot do.
//!
//! Config: `configs/losses/qpo.toml`. Oracle: `tests/losses/field.rs`.

use super::{
    About, Context, Divergence, Dual, Needs, Objective, Response, Scored, Shape, expected, knobs,
};
use crate::error::Result;
use serde::{Deserialize, Serialize};

knobs! {
    /// The knobs of QPO.
    Qpo {
        /// The papers' lambda: the weight of the divergence from the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// The function of the margin.
        psi: Psi = Psi::Logistic,
            in "ipo, logistic, hinge, squared, exponential, truncated_quadratic or savage";
        /// The divergence whose score S is mu.
        mu: Divergence = Divergence::ReverseKl,
            in "reverse_kl, forward_kl, jensen_shannon or alpha";
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in "(0, 1)";
    }
}

/// A quasi-convex function of the margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Psi {
    /// (x - 1 / (2 beta))^2.
    Ipo,
    /// log(1 + e^(-beta x)).
    Logistic,
    /// max(0, 1 - beta x).
    Hinge,
    /// (1 - beta x)^2.
    Squared,
    /// e^(-beta x).
    Exponential,
    /// max(0, 1 - beta x)^2.
    TruncatedQuadratic,
    /// 1 / (1 + e^(beta x))^2.
    Savage,
}

impl Psi {
    /// The shape of GPO that it is; `None` for that of IPO.
    fn shape(self) -> Option<Shape> {
        Some(match self {
            Self::Ipo => return None,
            Self::Logistic => Shape::Logistic,
            Self::Hinge => Shape::Hinge,
            Self::Squared => Shape::Squared,
            Self::Exponential => Shape::Exponential,
            Self::TruncatedQuadratic => Shape::TruncatedQuadratic,
            Self::Savage => Shape::Savage,
        })
    }
}

impl Qpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let margin = self.mu.margin(self.alpha, w, l);
        match self.psi.shape() {
            None => (margin - 1.0 / (2.0 * self.beta)).square(),
            Some(f) => f.of(self.beta * margin),
        }
    }
}

impl Objective for Qpo {
    fn about(&self) -> About {
        About {
            formula: "\
L = psi(mu(y_w) - mu(y_l), lambda),    lambda = beta
psi  ipo: (x - 1 / (2 beta))^2,    or f(beta x) with f one of the shapes of GPO
mu   S of a divergence: reverse KL, forward KL, Jensen-Shannon, alpha",
            paper: "the family that EXPO and TYPO analyse",
            config: "configs/losses/qpo.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs::referenced_pair()
    }

    fn validate(&self) -> Result<()> {
        self.mu.validate(self.alpha, "mu")
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }

    /// `clamped`: 1 where an exponent of psi or mu is at its ceiling.
    fn diagnostics(&self, example: &Scored, _batch: &Context) -> Vec<(&'static str, f64)> {
        let (w, l) = example.expect_pair();
        let z = self.beta * self.mu.margin(self.alpha, w, l);
        let of_psi = self.psi.shape().map(|f| f.diagnostics(&z));
        let figures = of_psi.into_iter().flatten();
        let figures = figures.chain(self.mu.diagnostics(self.alpha, example));
        figures
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .into_iter()
            .collect()
    }
}
