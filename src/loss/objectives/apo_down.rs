//! APO-down: both responses down, the rejected one further.
//!
//! D'Oosterlinck et al. 2024 (arXiv 2408.06266):
//!
//! ```text
//! L = sigma(beta rho_w) + 1 - sigma(beta h),    h = rho_w - rho_l
//! ```
//!
//! For pairs whose chosen response is worse than what the model writes. rho = log pi(y|x) - log r(y|x).
//!
//! Config: `configs/losses/apo_down.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, PairLoss, Range, Response};

knobs! {
    /// The knobs of APO-down.
    ApoDown {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
    }
}

impl PairLoss for ApoDown {
    const ABOUT: About = About {
        formula: "L = sigma(beta rho_w) + 1 - sigma(beta h),    h = rho_w - rho_l",
        paper: "D'Oosterlinck et al. 2024 (arXiv 2408.06266)",
        config: "configs/losses/apo_down.toml",
    };

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        (self.beta * w.log_ratio()).sigmoid() + (-self.beta * h).sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }
}

#[cfg(test)]
impl Contract for ApoDown {
    fn step_0(&self) -> Step0 {
        Step0 {
            value: 1.0,
            chosen: 0.0,
            rejected: self.beta / 4.0,
        }
    }
}
