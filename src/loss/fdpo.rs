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

use super::{
    About, Context, Divergence, Dual, Needs, Objective, Response, Scored, expected, knobs,
};
use crate::error::Result;

knobs! {
    /// The knobs of f-DPO.
    Fdpo {
        /// Weight of the divergence from the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// The divergence; Jensen-Shannon is the EXPO paper's choice.
        divergence: Divergence = Divergence::JensenShannon,
            in "reverse_kl, forward_kl, jensen_shannon or alpha";
        /// Of the divergence alpha, which alone reads it; 0.5 if not set.
        alpha: Option<f64> = None, in "(0, 1)";
    }
}

impl Fdpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        -(self.beta * self.divergence.margin(self.alpha, w, l)).log_sigmoid()
    }
}

impl Objective for Fdpo {
    fn about(&self) -> About {
        About {
            formula: "\
L = -log sigma(beta (S_w - S_l)),    rho = log pi(y|x) - log r(y|x)
reverse KL      S = rho                      Jensen-Shannon  S = log 2 + log sigma(rho)
forward KL      S = 1 - e^{-rho}             alpha           S = (1 - e^{-alpha rho}) / alpha",
            paper: "EXPO sec. 2.4, app. E.3; Wang et al. 2023, table 1",
            config: "configs/hh_fdpo_js.toml",
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
