//! ODPO: DPO with an offset that says how much better the chosen response is.
//!
//! Amini et al. 2024 (arXiv 2402.10571):
//!
//! ```text
//! L = -log sigma(beta h - alpha log(s_w - s_l)),    h = rho_w - rho_l,    s the scores
//! ```
//!
//! rho = log pi(y|x) - log r(y|x). The scores are the columns `score_chosen` and `score_rejected`; a row
//! whose chosen response does not have the higher one is invalid. The other order of a pair has no
//! offset, so there are no soft labels.
//!
//! Config: `configs/losses/odpo.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, SCORE_GAP, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, Needs, Objective, Range, Response, Scored};

knobs! {
    /// The knobs of ODPO.
    Odpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// Weight of the offset.
        alpha: f64 = 1.0, in Range::NON_NEGATIVE;
    }
}

impl Odpo {
    /// The loss of a pair whose scores differ by `gap` > 0.
    pub fn loss(&self, w: &Response, l: &Response, gap: f64) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        -(self.beta * h - self.alpha * gap.ln()).log_sigmoid()
    }
}

impl Objective for Odpo {
    fn about(&self) -> About {
        About {
            formula: "L = -log sigma(beta h - alpha log(s_w - s_l)),    h = rho_w - rho_l,    s the scores",
            paper: "Amini et al. 2024 (arXiv 2402.10571)",
            config: "configs/losses/odpo.toml",
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            soft_labels: false,
            scores: true,
            ..Needs::referenced_pair()
        }
    }

    fn evaluate(&self, example: &Scored, _statistics: &[f64]) -> Dual {
        let (w, l) = example.expect_pair();
        self.loss(w, l, example.score_gap.unwrap_or(f64::NAN))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }
}

#[cfg(test)]
impl Contract for Odpo {
    fn step_0(&self) -> Step0 {
        let odds = SCORE_GAP.powf(self.alpha);
        Step0::of_margin((1.0 + odds).ln(), -self.beta * odds / (1.0 + odds))
    }
}
