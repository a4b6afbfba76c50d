//! SPPO with hard labels: self-play regression of each log-ratio on its win rate.
//!
//! Wu et al. 2024 (arXiv 2405.00675):
//!
//! ```text
//! L = (rho_w - 1 / (2 beta))^2 + (rho_l + 1 / (2 beta))^2,    rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! The target eta (P - 1/2) of the paper at P = 1 and P = 0, with eta = 1 / beta; the paper has eta = 1000,
//! that is beta = 0.001.
//!
//! Config: `configs/losses/sppo_hard.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, PairLoss, Range, Response};

knobs! {
    /// The knobs of SPPO.
    SppoHard {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
    }
}

impl PairLoss for SppoHard {
    const ABOUT: About = About {
        formula: "L = (rho_w - 1 / (2 beta))^2 + (rho_l + 1 / (2 beta))^2,    rho = log pi(y|x) - log r(y|x)",
        paper: "Wu et al. 2024 (arXiv 2405.00675)",
        config: "configs/losses/sppo_hard.toml",
    };

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        let target = 1.0 / (2.0 * self.beta);
        (w.log_ratio() - target).square() + (l.log_ratio() - -target).square()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }
}

#[cfg(test)]
impl Contract for SppoHard {
    fn step_0(&self) -> Step0 {
        let value = 1.0 / (2.0 * self.beta * self.beta);
        Step0::of_margin(value, -1.0 / self.beta)
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("beta", "0.001")]]
    }
}
