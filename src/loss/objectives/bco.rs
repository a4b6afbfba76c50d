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
//! Config: `configs/losses/bco.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, PairLoss, Range, Response};

knobs! {
    /// The knobs of BCO.
    Bco {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
    }
}

impl PairLoss for Bco {
    const ABOUT: About = About {
        formula: "L = -log sigma(beta rho_w) - log sigma(-beta rho_l),    rho = log pi(y|x) - log r(y|x)",
        paper: "Jung et al. 2024 (arXiv 2404.04656)",
        config: "configs/losses/bco.toml",
    };

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        -(self.beta * w.log_ratio()).log_sigmoid() - (-self.beta * l.log_ratio()).log_sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }
}

#[cfg(test)]
impl Contract for Bco {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(2.0 * LOG_2, -self.beta / 2.0)
    }
}
