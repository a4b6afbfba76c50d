//! DiscoPOP: the log-ratio modulated loss, which a language model found.
//!
//! Lu et al. 2024 (arXiv 2406.08414):
//!
//! ```text
//! L = -(1 - m) log sigma(z) + m e^{-z},    m = sigma(z / tau)
//! z = beta Delta,    Delta = S_w - S_l
//! ```
//!
//! A blend of the losses of DPO and of the exponential; it is not convex. tau is at most 1, so that the
//! blend stays bounded where z is very negative. S is rho = log pi(y|x) - log r(y|x), or the score of
//! another divergence.
//!
//! Config: `configs/losses/discopop.toml`. Oracle: `tests/losses/field.rs`.

use super::{
    About, Context, Divergence, Dual, Needs, Objective, Response, Scored, expected, knobs,
};
use crate::error::Result;

knobs! {
    /// The knobs of DiscoPOP.
    Discopop {
        /// Weight of the KL to the reference.
        beta: f64 = 0.05, in "(0, inf)";
        /// How sharply the blend changes at z = 0.
        tau: f64 = 0.05, in "(0, 1]";
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl,
            in "reverse_kl, forward_kl, jensen_shannon or alpha";
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in "(0, 1)";
    }
}

impl Discopop {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let z = self.beta * self.divergence.margin(self.alpha, w, l);
        let blend = z.clone() / self.tau;
        // m e^{-z} in one exponential: e^{-z} alone overflows where m is 0.
        let exponential = (blend.clone().log_sigmoid() - z.clone()).exp();
        (-blend).sigmoid() * (-z.log_sigmoid()) + exponential
    }
}

impl Objective for Discopop {
    fn about(&self) -> About {
        About {
            formula: "\
L = -(1 - m) log sigma(z) + m e^{-z},    m = sigma(z / tau)
z = beta Delta,    Delta = S_w - S_l",
            paper: "Lu et al. 2024 (arXiv 2406.08414)",
            config: "configs/losses/discopop.toml",
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
