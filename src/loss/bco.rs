//! BCO on pairs: a binary classifier whose logit is the reward.
//!
//! Jung et al. 2024 (arXiv 2404.04656):
//!
//! ```text
//! L = -log sigma(beta rho_w) - log sigma(-beta rho_l),    rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! The form for pairs, without the shift of the reward by its running mean; TRL's `bco_pair`. It bounds
//! the loss of DPO from above.
//!
//! Config: `configs/losses/bco.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of BCO.
    Bco {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
    }
}

impl Bco {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        -(self.beta * w.log_ratio()).log_sigmoid() - (-self.beta * l.log_ratio()).log_sigmoid()
    }
}

impl Objective for Bco {
    fn about(&self) -> About {
        About {
            formula: "L = -log sigma(beta rho_w) - log sigma(-beta rho_l),    rho = log pi(y|x) - log r(y|x)",
            paper: "Jung et al. 2024 (arXiv 2404.04656)",
            config: "configs/losses/bco.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs::referenced_pair()
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }
}
