//! DPO-Positive: DPO that does not let the chosen response become less likely.
//!
//! Pal et al. 2024 (Smaug, arXiv 2402.13228):
//!
//! ```text
//! L = -log sigma(beta (h - kappa max(0, -rho_w))),    h = rho_w - rho_l
//! ```
//!
//! rho = log pi(y|x) - log r(y|x). kappa is the paper's lambda. At rho_w = 0, where training starts, the
//! slope of the maximum is 0.
//!
//! Config: `configs/losses/dpop.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of DPO-Positive.
    Dpop {
        /// Weight of the KL to the reference.
        beta: f64 = 0.3, in Range::POSITIVE;
        /// Weight of the penalty.
        kappa: f64 = 50.0, in Range::NON_NEGATIVE;
    }
}

impl MarginLoss for Dpop {
    const ABOUT: About = About {
        formula: "L = -log sigma(beta (h - kappa max(0, -rho_w))),    h = rho_w - rho_l",
        paper: "Pal et al. 2024 (arXiv 2402.13228)",
        config: "configs/losses/dpop.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        -(self.beta * margin).log_sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }

    fn margin(&self, w: &Response, l: &Response) -> Dual {
        let rho = w.log_ratio();
        let penalty = self.kappa * (-rho.clone()).relu();
        rho - l.log_ratio() - penalty
    }
}

#[cfg(test)]
impl Contract for Dpop {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(LOG_2, -self.beta / 2.0)
    }

    /// The penalty has one where a response is as likely as under the reference.
    fn is_kink(&self, w: &Response, l: &Response) -> bool {
        w.log_ratio().value == 0.0 || l.log_ratio().value == 0.0
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("kappa", "5"), ("beta", "0.1")]]
    }
}
