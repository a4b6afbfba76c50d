//! IPO.
//!
//! Azar et al. 2023, eq. 17; EXPO eq. 9:
//!
//! ```text
//! L = (h - 1 / (2 beta))^2,    h = rho_w - rho_l,    rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! beta is the weight of KL(pi || r), the papers' tau or lambda. The papers and the DPO authors'
//! repository sum the log-probs of a response; TRL and HALOs divide rho by its length.
//!
//! Config: `configs/hh_ipo.toml`. Oracle: `tests/losses.rs`, `losses_agree_with_their_peers`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LENGTH, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of IPO.
    Ipo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// Whether each rho is divided by the length of its response (TRL, HALOs).
        average_log_prob: bool = false;
    }
}

impl MarginLoss for Ipo {
    const ABOUT: About = About {
        formula: "L = (h - 1 / (2 beta))^2,    h = rho_w - rho_l",
        paper: "EXPO eq. 9; Azar et al. 2023, eq. 17",
        config: "configs/hh_ipo.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        (margin - 1.0 / (2.0 * self.beta)).square()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }

    fn margin(&self, w: &Response, l: &Response) -> Dual {
        if self.average_log_prob {
            w.log_ratio() / w.tokens - l.log_ratio() / l.tokens
        } else {
            w.log_ratio() - l.log_ratio()
        }
    }
}

#[cfg(test)]
impl Contract for Ipo {
    fn step_0(&self) -> Step0 {
        let length = if self.average_log_prob { LENGTH } else { 1.0 };
        let value = 1.0 / (4.0 * self.beta * self.beta);
        Step0::of_margin(value, -1.0 / self.beta / length)
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("average_log_prob", "true")]]
    }
}
