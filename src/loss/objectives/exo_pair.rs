//! EXO on pairs: the reverse KL from the policy's preference to the label's.
//!
//! Ji et al. 2024 (arXiv 2402.00856):
//!
//! ```text
//! L = q (log q - log(1 - eps)) + (1 - q) (log(1 - q) - log eps)
//! q = sigma(beta Delta),    Delta = S_w - S_l
//! ```
//!
//! DPO is the other direction of the same KL. eps keeps it finite: the label is (1 - eps, eps). S is
//! rho = log pi(y|x) - log r(y|x), or the score of another divergence.
//!
//! Config: `configs/losses/exo_pair.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Divergence, DivergenceScore, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of EXO.
    ExoPair {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// eps, the probability that the label leaves to the rejected response.
        label_smoothing: f64 = 1e-3, in Range::open_closed(0.0, 0.5);
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl;
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in Range::open(0.0, 1.0);
    }
}

impl MarginLoss for ExoPair {
    const ABOUT: About = About {
        formula: "\
L = q (log q - log(1 - eps)) + (1 - q) (log(1 - q) - log eps)
q = sigma(beta Delta),    Delta = S_w - S_l",
        paper: "Ji et al. 2024 (arXiv 2402.00856)",
        config: "configs/losses/exo_pair.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        let z = self.beta * margin;
        let eps = self.label_smoothing;
        let term = |z: Dual, label: f64| z.clone().sigmoid() * (z.log_sigmoid() - label.ln());
        term(z.clone(), 1.0 - eps) + term(-z, eps)
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
impl Contract for ExoPair {
    fn step_0(&self) -> Step0 {
        let eps = self.label_smoothing;
        let value = -LOG_2 - (eps * (1.0 - eps)).ln() / 2.0;
        let slope = self.beta * (eps / (1.0 - eps)).ln() / 4.0;
        Step0::of_margin(value, slope * self.divergence.curvature())
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("divergence", "alpha"), ("label_smoothing", "0.2")]]
    }
}
