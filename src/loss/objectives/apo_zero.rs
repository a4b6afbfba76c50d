//! APO-zero: chosen up, rejected down, each against the reference.
//!
//! D'Oosterlinck et al. 2024 (arXiv 2408.06266):
//!
//! ```text
//! L = 1 - sigma(beta rho_w) + sigma(beta rho_l),    rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! For pairs whose chosen response is better than what the model writes.
//!
//! Config: `configs/losses/apo_zero.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, PairLoss, Range, Response};

knobs! {
    /// The knobs of APO-zero.
    ApoZero {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
    }
}

impl PairLoss for ApoZero {
    const ABOUT: About = About {
        formula: "L = 1 - sigma(beta rho_w) + sigma(beta rho_l),    rho = log pi(y|x) - log r(y|x)",
        paper: "D'Oosterlinck et al. 2024 (arXiv 2408.06266)",
        config: "configs/losses/apo_zero.toml",
    };

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        (-self.beta * w.log_ratio()).sigmoid() + (self.beta * l.log_ratio()).sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }
}

#[cfg(test)]
impl Contract for ApoZero {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(1.0, -self.beta / 4.0)
    }
}
