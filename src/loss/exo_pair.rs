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
//! Config: `configs/losses/exo_pair.toml`. Oracle: `tests/losses/field.rs`.

use super::{
    About, Context, Divergence, Dual, Needs, Objective, Response, Scored, expected, knobs,
};
use crate::error::Result;

knobs! {
    /// The knobs of EXO.
    ExoPair {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// eps, the probability that the label leaves to the rejected response.
        label_smoothing: f64 = 1e-3, in "(0, 0.5]";
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl,
            in "reverse_kl, forward_kl, jensen_shannon or alpha";
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in "(0, 1)";
    }
}

impl ExoPair {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let z = self.beta * self.divergence.margin(self.alpha, w, l);
        let eps = self.label_smoothing;
        let term = |z: Dual, label: f64| z.clone().sigmoid() * (z.log_sigmoid() - label.ln());
        term(z.clone(), 1.0 - eps) + term(-z, eps)
    }
}

impl Objective for ExoPair {
    fn about(&self) -> About {
        About {
            formula: "\
L = q (log q - log(1 - eps)) + (1 - q) (log(1 - q) - log eps)
q = sigma(beta Delta),    Delta = S_w - S_l",
            paper: "Ji et al. 2024 (arXiv 2402.00856)",
            config: "configs/losses/exo_pair.toml",
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
