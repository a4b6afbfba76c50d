//! WPO: DPO in which each pair counts as much as the policy could have written it.
//!
//! Zhou et al. 2024 (arXiv 2406.11827):
//!
//! ```text
//! L = -w_w w_l log sigma(beta h),    h = rho_w - rho_l
//! w = exp(mean over tokens of [log pi_t - log sum_v pi_v^2])
//! ```
//!
//! pi_t is the probability of the token, the sum is over the vocabulary; w is near 1 for what the policy
//! would write itself, and carries no gradient. rho = log pi(y|x) - log r(y|x). TRL also cuts the product of the
//! weights at 1; the paper does not.
//!
//! Config: `configs/losses/wpo.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{CONFIDENCE, Contract, LOG_2, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, Needs, PairLoss, Range, Response};

knobs! {
    /// The knobs of WPO.
    Wpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.01, in Range::POSITIVE;
    }
}

impl PairLoss for Wpo {
    const ABOUT: About = About {
        formula: "\
L = -w_w w_l log sigma(beta h),    h = rho_w - rho_l
w = exp(mean over tokens of [log pi_t - log sum_v pi_v^2])",
        paper: "Zhou et al. 2024 (arXiv 2406.11827)",
        config: "configs/losses/wpo.toml",
    };

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        let weight = (w.confidence + l.confidence).exp();
        -weight * (self.beta * h).log_sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }

    fn needs(&self) -> Needs {
        Needs {
            confidence: true,
            ..Needs::referenced_pair()
        }
    }
}

#[cfg(test)]
impl Contract for Wpo {
    fn step_0(&self) -> Step0 {
        let weight = (CONFIDENCE[0] + CONFIDENCE[1]).exp();
        Step0::of_margin(weight * LOG_2, -weight * self.beta / 2.0)
    }
}
