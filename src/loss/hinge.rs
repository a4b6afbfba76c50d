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
//! Config: `configs/losses/hinge.toml`. Oracle: `tests/losses/field.rs`.

use super::{
    About, Context, Divergence, Dual, Needs, Objective, Response, Scored, expected, knobs,
};
use crate::error::Result;

knobs! {
    /// The knobs of the hinge loss.
    Hinge {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl,
            in "reverse_kl, forward_kl, jensen_shannon or alpha";
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in "(0, 1)";
    }
}

impl Hinge {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        (1.0 - self.beta * self.divergence.margin(self.alpha, w, l)).relu()
    }
}

impl Objective for Hinge {
    fn about(&self) -> About {
        About {
            formula: "L = max(0, 1 - beta Delta),    Delta = S_w - S_l",
            paper: "Zhao et al. 2023 (arXiv 2305.10425); Liu et al. 2023 (arXiv 2309.06657)",
            config: "configs/losses/hinge.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs::referenced_pair()
    }

    fn validate(&self) -> Result<()> {
        self.divergence.validate(self.alpha, "divergence")
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }

    fn diagnostics(&self, example: &Scored, _batch: &Context) -> Vec<(&'static str, f64)> {
        self.divergence.diagnostics(self.alpha, example)
    }
}
