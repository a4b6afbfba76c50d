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
//! Config: `configs/losses/qpo.toml`. Oracle: `tests/losses/second_formulas.rs`.

use super::gpo::Shape;
#[cfg(test)]
use crate::loss::contract_tests::{Contract, Settings, Step0};
use crate::loss::knobs::{knobs, words};
use crate::loss::{About, Divergence, DivergenceScore, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of QPO.
    Qpo {
        /// The papers' lambda: the weight of the divergence from the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// The function of the margin.
        psi: Psi = Psi::Logistic;
        /// The divergence whose score S is mu.
        mu: Divergence = Divergence::ReverseKl;
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in Range::open(0.0, 1.0);
    }
}

words! {
    /// A quasi-convex function of the margin.
    Psi {
        /// (x - 1 / (2 beta))^2.
        "ipo" => Ipo,
        /// log(1 + e^(-beta x)).
        "logistic" => Logistic,
        /// max(0, 1 - beta x).
        "hinge" => Hinge,
        /// (1 - beta x)^2.
        "squared" => Squared,
        /// e^(-beta x).
        "exponential" => Exponential,
        /// max(0, 1 - beta x)^2.
        "truncated_quadratic" => TruncatedQuadratic,
        /// 1 / (1 + e^(beta x))^2.
        "savage" => Savage,
    }
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

impl MarginLoss for Qpo {
    const ABOUT: About = About {
        formula: "\
L = psi(mu(y_w) - mu(y_l), lambda),    lambda = beta
psi  ipo: (x - 1 / (2 beta))^2,    or f(beta x) with f one of the shapes of GPO
mu   S of a divergence: reverse KL, forward KL, Jensen-Shannon, alpha",
        paper: "the family that EXPO and TYPO analyse",
        config: "configs/losses/qpo.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        match self.psi.shape() {
            None => (margin - 1.0 / (2.0 * self.beta)).square(),
            Some(f) => f.of(self.beta * margin),
        }
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }

    fn score(&self) -> DivergenceScore {
        DivergenceScore {
            divergence: self.mu,
            alpha: self.alpha,
            knob: "mu",
        }
    }

    /// `clamped`: 1 where an exponent of psi or mu is at its ceiling.
    fn diagnostics(&self, w: &Response, l: &Response) -> Vec<(&'static str, f64)> {
        let z = self.beta * self.margin(w, l);
        let of_psi = self.psi.shape().map(|f| f.diagnostics(&z));
        let figures = of_psi.into_iter().flatten();
        let figures = figures.chain(self.score().diagnostics(w, l));
        figures
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
impl Contract for Qpo {
    fn step_0(&self) -> Step0 {
        let (value, slope) = match self.psi.shape() {
            None => (1.0 / (4.0 * self.beta * self.beta), -1.0 / self.beta),
            Some(f) => (f.at_0().0, self.beta * f.at_0().1),
        };
        Step0::of_margin(value, slope * self.mu.curvature())
    }

    fn variants(&self) -> &'static [Settings] {
        &[
            &[("psi", "ipo"), ("mu", "jensen_shannon")],
            &[("psi", "savage"), ("mu", "alpha"), ("alpha", "0.3")],
            &[("psi", "truncated_quadratic"), ("mu", "forward_kl")],
        ]
    }
}
