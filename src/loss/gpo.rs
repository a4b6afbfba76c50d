//! GPO: any decreasing function of the margin.
//!
//! Tang et al. 2024 (arXiv 2402.05749), table 1:
//!
//! ```text
//! L = f(beta h),    h = rho_w - rho_l,    rho = log pi(y|x) - log r(y|x)
//! logistic             f(z) = log(1 + e^{-z})      (DPO)
//! hinge                f(z) = max(0, 1 - z)        (SLiC)
//! squared              f(z) = (1 - z)^2            (IPO up to scale)
//! exponential          f(z) = e^{-z}
//! truncated_quadratic  f(z) = max(0, 1 - z)^2
//! savage               f(z) = 1 / (1 + e^z)^2      (not convex)
//! ```
//!
//! The exponent of `exponential` is held at 80, with no gradient beyond, and `clamped` says how often.
//!
//! Config: `configs/losses/gpo.toml`. Oracle: `tests/losses/field.rs`.

use super::divergence::LARGEST_EXPONENT;
use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};
use serde::{Deserialize, Serialize};

knobs! {
    /// The knobs of GPO.
    Gpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// The function of the margin.
        f: Shape = Shape::Logistic,
            in "logistic, hinge, squared, exponential, truncated_quadratic or savage";
    }
}

/// A function f of the scaled margin z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// log(1 + e^-z).
    Logistic,
    /// max(0, 1 - z).
    Hinge,
    /// (1 - z)^2.
    Squared,
    /// e^-z.
    Exponential,
    /// max(0, 1 - z)^2.
    TruncatedQuadratic,
    /// 1 / (1 + e^z)^2.
    Savage,
}

impl Shape {
    /// f(z).
    pub fn of(self, z: Dual) -> Dual {
        match self {
            Self::Logistic => (-z).softplus(),
            Self::Hinge => (1.0 - z).relu(),
            Self::Squared => (1.0 - z).square(),
            Self::Exponential => (-z).at_most(LARGEST_EXPONENT).exp(),
            Self::TruncatedQuadratic => (1.0 - z).relu().square(),
            Self::Savage => (-z).sigmoid().square(),
        }
    }

    /// `clamped`, where the shape has an exponent.
    pub(super) fn diagnostics(self, z: &Dual) -> Vec<(&'static str, f64)> {
        match self {
            Self::Exponential => vec![("clamped", f64::from(-z.value > LARGEST_EXPONENT))],
            _ => Vec::new(),
        }
    }
}

impl Gpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        self.f.of(self.beta * h)
    }
}

impl Objective for Gpo {
    fn about(&self) -> About {
        About {
            formula: "\
L = f(beta h),    h = rho_w - rho_l,    rho = log pi(y|x) - log r(y|x)
logistic             f(z) = log(1 + e^{-z})      (DPO)
hinge                f(z) = max(0, 1 - z)        (SLiC)
squared              f(z) = (1 - z)^2            (IPO up to scale)
exponential          f(z) = e^{-z}
truncated_quadratic  f(z) = max(0, 1 - z)^2
savage               f(z) = 1 / (1 + e^z)^2      (not convex)",
            paper: "Tang et al. 2024 (arXiv 2402.05749), table 1",
            config: "configs/losses/gpo.toml",
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

    /// `clamped`: 1 where the exponent is at its ceiling.
    fn diagnostics(&self, example: &Scored, _batch: &Context) -> Vec<(&'static str, f64)> {
        let (w, l) = example.expect_pair();
        let z = self.beta * (w.log_ratio() - l.log_ratio());
        self.f.diagnostics(&z)
    }
}
