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
//! Config: `configs/losses/wpo.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of WPO.
    Wpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.01, in "(0, inf)";
    }
}

impl Wpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        let weight = (w.confidence + l.confidence).exp();
        -weight * (self.beta * h).log_sigmoid()
    }
}

impl Objective for Wpo {
    fn about(&self) -> About {
        About {
            formula: "\
L = -w_w w_l log sigma(beta h),    h = rho_w - rho_l
w = exp(mean over tokens of [log pi_t - log sum_v pi_v^2])",
            paper: "Zhou et al. 2024 (arXiv 2406.11827)",
            config: "configs/losses/wpo.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            confidence: true,
            ..Needs::referenced_pair()
        }
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }
}
