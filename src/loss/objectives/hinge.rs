//! Hinge: the loss of SLiC on the margin of DPO.
//!
//! Zhao et al. 2023 (SLiC-HF, arXiv 2305.10425); with log-ratios: Liu et al. 2023 (RSO, arXiv 2309.06657):
//!
//! ```text
//! L = max(0, 1 - beta Delta),    Delta = S_w - S_l
//! ```
//!
//! S is rho = log pi(y|x) - log r(y|x), or the score of another divergence. 1 / beta is the margin beyond
//! which a pair teaches nothing. At the kink the slope is 0.
//!
//! Config: `configs/losses/hinge.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Divergence, DivergenceScore, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of the hinge loss.
    Hinge {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl;
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in Range::open(0.0, 1.0);
    }
}

impl MarginLoss for Hinge {
    const ABOUT: About = About {
        formula: "L = max(0, 1 - beta Delta),    Delta = S_w - S_l",
        paper: "Zhao et al. 2023 (arXiv 2305.10425); Liu et al. 2023 (arXiv 2309.06657)",
        config: "configs/losses/hinge.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        (1.0 - self.beta * margin).relu()
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
impl Contract for Hinge {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(1.0, -self.beta * self.divergence.curvature())
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("divergence", "jensen_shannon"), ("beta", "0.5")]]
    }
}
