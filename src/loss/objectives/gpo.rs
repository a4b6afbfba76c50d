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
//! Config: `configs/losses/gpo.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::divergence::LARGEST_EXPONENT;
use crate::loss::knobs::{knobs, words};
use crate::loss::{About, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of GPO.
    Gpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// The function of the margin.
        f: Shape = Shape::Logistic;
    }
}

words! {
    /// A function f of the scaled margin z.
    Shape {
        /// log(1 + e^-z).
        "logistic" => Logistic,
        /// max(0, 1 - z).
        "hinge" => Hinge,
        /// (1 - z)^2.
        "squared" => Squared,
        /// e^-z.
        "exponential" => Exponential,
        /// max(0, 1 - z)^2.
        "truncated_quadratic" => TruncatedQuadratic,
        /// 1 / (1 + e^z)^2.
        "savage" => Savage,
    }
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

impl MarginLoss for Gpo {
    const ABOUT: About = About {
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
    };

    fn of(&self, margin: Dual) -> Dual {
        self.f.of(self.beta * margin)
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }

    /// `clamped`: 1 where the exponent is at its ceiling.
    fn diagnostics(&self, w: &Response, l: &Response) -> Vec<(&'static str, f64)> {
        self.f.diagnostics(&(self.beta * self.margin(w, l)))
    }
}

#[cfg(test)]
impl Shape {
    /// f(0) and f'(0).
    pub(super) fn at_0(self) -> (f64, f64) {
        match self {
            Self::Logistic => (LOG_2, -0.5),
            Self::Hinge | Self::Exponential => (1.0, -1.0),
            Self::Squared | Self::TruncatedQuadratic => (1.0, -2.0),
            Self::Savage => (0.25, -0.25),
        }
    }
}

#[cfg(test)]
impl Contract for Gpo {
    fn step_0(&self) -> Step0 {
        let (value, slope) = self.f.at_0();
        Step0::of_margin(value, self.beta * slope)
    }

    fn variants(&self) -> &'static [Settings] {
        &[
            &[("f", "hinge")],
            &[("f", "squared")],
            &[("f", "exponential")],
            &[("f", "truncated_quadratic")],
            &[("f", "savage")],
        ]
    }
}
