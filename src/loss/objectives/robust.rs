//! Robust DPO: unbiased under labels that were flipped at a known rate.
//!
//! Chowdhury et al. 2024 (arXiv 2403.00409):
//!
//! ```text
//! L = [-(1 - eps) log sigma(beta Delta) + eps log sigma(-beta Delta)] / (1 - 2 eps)
//! Delta = S_w - S_l
//! ```
//!
//! The mean of this over labels that are flipped with probability eps is the loss of DPO on the true
//! labels. It has no lower bound: for large Delta it falls without end.
//!
//! S is rho = log pi(y|x) - log r(y|x), or the score of another divergence. TRL calls eps
//! `label_smoothing`, too, but has 0 by default, which is DPO.
//!
//! Config: `configs/losses/robust.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Divergence, DivergenceScore, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of robust DPO.
    Robust {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// eps, the assumed share of flipped labels.
        label_smoothing: f64 = 0.1, in Range::closed_open(0.0, 0.5);
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl;
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in Range::open(0.0, 1.0);
    }
}

impl MarginLoss for Robust {
    const ABOUT: About = About {
        formula: "\
L = [-(1 - eps) log sigma(beta Delta) + eps log sigma(-beta Delta)] / (1 - 2 eps)
Delta = S_w - S_l",
        paper: "Chowdhury et al. 2024 (arXiv 2403.00409)",
        config: "configs/losses/robust.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        let z = self.beta * margin;
        let eps = self.label_smoothing;
        let (kept, flipped) = (z.clone().log_sigmoid(), (-z).log_sigmoid());
        (eps * flipped - (1.0 - eps) * kept) / (1.0 - 2.0 * eps)
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
impl Contract for Robust {
    fn step_0(&self) -> Step0 {
        let slope = -self.beta / 2.0 / (1.0 - 2.0 * self.label_smoothing);
        Step0::of_margin(LOG_2, slope * self.divergence.curvature())
    }

    fn is_never_negative(&self) -> bool {
        false
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("divergence", "forward_kl"), ("label_smoothing", "0.2")]]
    }
}
