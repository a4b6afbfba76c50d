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
//! Config: `configs/losses/robust.toml`. Oracle: `tests/losses/field.rs`.

use super::{
    About, Context, Divergence, Dual, Needs, Objective, Response, Scored, expected, knobs,
};
use crate::error::Result;

knobs! {
    /// The knobs of robust DPO.
    Robust {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// eps, the assumed share of flipped labels.
        label_smoothing: f64 = 0.1, in "[0, 0.5)";
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl,
            in "reverse_kl, forward_kl, jensen_shannon or alpha";
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in "(0, 1)";
    }
}

impl Robust {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let z = self.beta * self.divergence.margin(self.alpha, w, l);
        let eps = self.label_smoothing;
        let (kept, flipped) = (z.clone().log_sigmoid(), (-z).log_sigmoid());
        (eps * flipped - (1.0 - eps) * kept) / (1.0 - 2.0 * eps)
    }
}

impl Objective for Robust {
    fn about(&self) -> About {
        About {
            formula: "\
L = [-(1 - eps) log sigma(beta Delta) + eps log sigma(-beta Delta)] / (1 - 2 eps)
Delta = S_w - S_l",
            paper: "Chowdhury et al. 2024 (arXiv 2403.00409)",
            config: "configs/losses/robust.toml",
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
