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
//! Config: `configs/losses/sigmoid_norm.toml`. Oracle: `tests/losses/field.rs`.

use super::{
    About, Context, Divergence, Dual, Needs, Objective, Response, Scored, expected, knobs,
};
use crate::error::Result;

knobs! {
    /// The knobs of length-normalised DPO.
    SigmoidNorm {
        /// Weight of the KL to the reference.
        beta: f64 = 5.0, in "(0, inf)";
        /// The divergence whose score S stands in Delta.
        divergence: Divergence = Divergence::ReverseKl,
            in "reverse_kl, forward_kl, jensen_shannon or alpha";
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in "(0, 1)";
    }
}

impl SigmoidNorm {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let per_token = |y: &Response| self.divergence.score(self.alpha, y) / y.tokens;
        -(self.beta * (per_token(w) - per_token(l))).log_sigmoid()
    }
}

impl Objective for SigmoidNorm {
    fn about(&self) -> About {
        About {
            formula: "L = -log sigma(beta (S_w / |y_w| - S_l / |y_l|))",
            paper: "Lambert et al. 2024 (arXiv 2411.15124)",
            config: "configs/losses/sigmoid_norm.toml",
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
