//! f-DPO: DPO under another divergence than the reverse KL.
//!
//! Wang et al. 2023 (Beyond Reverse KL), table 1; EXPO section 2.4 and appendix E.3:
//!
//! ```text
//! L = -log sigma(beta (S_w - S_l))
//! ```
//!
//! S is the score of the divergence, see [`Divergence`]; the reverse KL is DPO. TRL's
//! `f_alpha_divergence_coef` is 1 - alpha of the paper and of this file.
//!
//! Config: `configs/hh_fdpo_js.toml`. Oracle: `tests/losses.rs`, `losses_agree_with_their_peers`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Divergence, DivergenceScore, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of f-DPO.
    Fdpo {
        /// Weight of the divergence from the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// The divergence; Jensen-Shannon is the EXPO paper's choice.
        divergence: Divergence = Divergence::JensenShannon;
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in Range::open(0.0, 1.0);
    }
}

impl MarginLoss for Fdpo {
    const ABOUT: About = About {
        formula: "\
L = -log sigma(beta (S_w - S_l)),    rho = log pi(y|x) - log r(y|x)
reverse KL      S = rho                      Jensen-Shannon  S = log 2 + log sigma(rho)
forward KL      S = 1 - e^{-rho}             alpha           S = (1 - e^{-alpha rho}) / alpha",
        paper: "EXPO sec. 2.4, app. E.3; Wang et al. 2023, table 1",
        config: "configs/hh_fdpo_js.toml",
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
}

#[cfg(test)]
impl Contract for Fdpo {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(LOG_2, -self.beta / 2.0 * self.divergence.curvature())
    }

    fn variants(&self) -> &'static [Settings] {
        &[
            &[("divergence", "reverse_kl")],
            &[("divergence", "forward_kl")],
            &[("divergence", "alpha")],
            &[("divergence", "alpha"), ("alpha", "0.9")],
        ]
    }
}
