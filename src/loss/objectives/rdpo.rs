//! R-DPO: DPO with a penalty on length.
//!
//! Park et al. 2024 (arXiv 2403.19159):
//!
//! ```text
//! L = -log sigma(beta h + alpha (|y_w| - |y_l|)),    h = rho_w - rho_l
//! ```
//!
//! rho = log pi(y|x) - log r(y|x). A chosen response that is longer counts as explained in part by its
//! length.
//!
//! Config: `configs/losses/rdpo.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of R-DPO.
    Rdpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// Nats per token of difference in length.
        alpha: f64 = 0.01, in Range::NON_NEGATIVE;
    }
}

impl MarginLoss for Rdpo {
    const ABOUT: About = About {
        formula: "L = -log sigma(beta h + alpha (|y_w| - |y_l|)),    h = rho_w - rho_l",
        paper: "Park et al. 2024 (arXiv 2403.19159)",
        config: "configs/losses/rdpo.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        -margin.log_sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }

    fn margin(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        self.alpha * (w.tokens - l.tokens) + self.beta * h
    }
}

#[cfg(test)]
impl Contract for Rdpo {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(LOG_2, -self.beta / 2.0)
    }
}
