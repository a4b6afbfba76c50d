//! NCA on pairs: noise contrastive alignment, which holds the chosen response up.
//!
//! Chen et al. 2024 (arXiv 2402.05369):
//!
//! ```text
//! L = -log sigma(beta rho_w) - [log sigma(-beta rho_w) + log sigma(-beta rho_l)] / 2
//! rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! Each response is judged on its own, not the difference. TRL's name is `nca_pair`.
//!
//! Config: `configs/losses/nca.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, PairLoss, Range, Response};

knobs! {
    /// The knobs of NCA.
    Nca {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
    }
}

impl PairLoss for Nca {
    const ABOUT: About = About {
        formula: "\
L = -log sigma(beta rho_w) - [log sigma(-beta rho_w) + log sigma(-beta rho_l)] / 2
rho = log pi(y|x) - log r(y|x)",
        paper: "Chen et al. 2024 (arXiv 2402.05369)",
        config: "configs/losses/nca.toml",
    };

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        let (z_w, z_l) = (self.beta * w.log_ratio(), self.beta * l.log_ratio());
        let noise = (-z_w.clone()).log_sigmoid() + (-z_l).log_sigmoid();
        -z_w.log_sigmoid() - noise / 2.0
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }
}

#[cfg(test)]
impl Contract for Nca {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(2.0 * LOG_2, -self.beta / 4.0)
    }
}
