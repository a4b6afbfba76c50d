//! Length-normalised DPO.
//!
//! Lambert et al. 2024 (Tulu 3, arXiv 2411.15124):
//!
//! ```text
//! L = -log sigma(beta (S_w / |y_w| - S_l / |y_l|))
//! ```
//!
//! S is rho = log pi(y|x) - log r(y|x), or the score of another divergence. TRL's name is `sigmoid_norm`.
//! Scores per token are small, so beta is larger than that of DPO: Tulu 3 has 5.
//!
//! Config: `configs/losses/sigmoid_norm.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LENGTH, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Divergence, DivergenceScore, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of length-normalised DPO.
    SigmoidNorm {
        /// Weight of the KL to the reference.
        beta: f64 = 5.0, in Range::POSITIVE;
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl;
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in Range::open(0.0, 1.0);
    }
}

impl MarginLoss for SigmoidNorm {
    const ABOUT: About = About {
        formula: "L = -log sigma(beta (S_w / |y_w| - S_l / |y_l|))",
        paper: "Lambert et al. 2024 (arXiv 2411.15124)",
        config: "configs/losses/sigmoid_norm.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        -(self.beta * margin).log_sigmoid()
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

    fn margin(&self, w: &Response, l: &Response) -> Dual {
        let per_token = |y: &Response| self.score().of(y) / y.tokens;
        per_token(w) - per_token(l)
    }
}

#[cfg(test)]
impl Contract for SigmoidNorm {
    fn step_0(&self) -> Step0 {
        let slope = -self.beta / 2.0 / LENGTH * self.divergence.curvature();
        Step0::of_margin(LOG_2, slope)
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("divergence", "jensen_shannon")]]
    }
}
