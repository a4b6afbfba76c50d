//! DiscoPOP: the log-ratio modulated loss, which a language model found.
//!
//! Lu et al. 2024 (arXiv 2406.08414):
//!
//! ```text
//! L = -(1 - m) log sigma(z) + m e^{-z},    m = sigma(z / tau)
//! z = beta Delta,    Delta = S_w - S_l
//! ```
//!
//! A blend of the losses of DPO and of the exponential; it is not convex. tau is at most 1, so that the
//! blend stays bounded where z is very negative. S is rho = log pi(y|x) - log r(y|x), or the score of
//! another divergence.
//!
//! Config: `configs/losses/discopop.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Divergence, DivergenceScore, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of DiscoPOP.
    Discopop {
        /// Weight of the KL to the reference.
        beta: f64 = 0.05, in Range::POSITIVE;
        /// How sharply the blend changes at z = 0.
        tau: f64 = 0.05, in Range::open_closed(0.0, 1.0);
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl;
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in Range::open(0.0, 1.0);
    }
}

impl MarginLoss for Discopop {
    const ABOUT: About = About {
        formula: "\
L = -(1 - m) log sigma(z) + m e^{-z},    m = sigma(z / tau)
z = beta Delta,    Delta = S_w - S_l",
        paper: "Lu et al. 2024 (arXiv 2406.08414)",
        config: "configs/losses/discopop.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        let z = self.beta * margin;
        let blend = z.clone() / self.tau;
        // m e^{-z} in one exponential: e^{-z} alone overflows where m is 0.
        let exponential = (blend.clone().log_sigmoid() - z.clone()).exp();
        (-blend).sigmoid() * (-z.log_sigmoid()) + exponential
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }

    fn score(&self) -> DivergenceScore {
        DivergenceScore {
            divergence: self.divergence,
            alpha: self.alpha,
            knob: "divergence",
        }
    }
}

#[cfg(test)]
impl Contract for Discopop {
    fn step_0(&self) -> Step0 {
        let value = 0.5 * LOG_2 + 0.5;
        assert!((value - 0.846574).abs() < 1e-6);
        let slope = self.beta * ((1.0 - LOG_2) / (4.0 * self.tau) - 0.75);
        Step0::of_margin(value, slope * self.divergence.curvature())
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("tau", "1"), ("divergence", "jensen_shannon")]]
    }
}
