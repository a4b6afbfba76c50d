//! NCA on pairs: noise contrastive alignment, which holds the chosen response up.
//!
//! Chen et al. 2024 (arXiv 2402.05369):
//!
//! ```text
//! L = -log sigma(beta rho_w) - [log sigma(-beta rho_w) + log sigma(-beta rho_l)] / 2
//! rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! Each response is judged by itself, not the difference. TRL's name is `nca_pair`.
//!
//! Config: `configs/losses/nca.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of NCA.
    Nca {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
    }
}

impl Nca {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let (z_w, z_l) = (self.beta * w.log_ratio(), self.beta * l.log_ratio());
        let noise = (-z_w.clone()).log_sigmoid() + (-z_l).log_sigmoid();
        -z_w.log_sigmoid() - noise / 2.0
    }
}

impl Objective for Nca {
    fn about(&self) -> About {
        About {
            formula: "\
L = -log sigma(beta rho_w) - [log sigma(-beta rho_w) + log sigma(-beta rho_l)] / 2
rho = log pi(y|x) - log r(y|x)",
            paper: "Chen et al. 2024 (arXiv 2402.05369)",
            config: "configs/losses/nca.toml",
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
