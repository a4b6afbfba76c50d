//! DPO, with the label smoothing of cDPO.
//!
//! Rafailov et al. 2023, eq. 7; EXPO eq. 7; cDPO: Mitchell 2023, eq. 3:
//!
//! ```text
//! L = -(1 - eps) log sigma(beta h) - eps log sigma(-beta h)
//! h = rho_w - rho_l,    rho = log pi(y|x) - log r(y|x)
//! ```
//!
//! beta is the weight of KL(pi || r) in the objective it solves, the EXPO paper's lambda; eps is
//! the assumed share of flipped labels. TRL ignores `label_smoothing` under its `sigmoid` loss;
//! this is the form of the DPO authors' repository.
//!
//! Config: `configs/hh_dpo.toml`. Oracle: `tests/losses.rs`, `losses_agree_with_their_peers`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::pair::smoothed;
use crate::loss::{About, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of DPO.
    Dpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// eps, the assumed share of flipped labels (cDPO).
        label_smoothing: f64 = 0.0, in Range::closed(0.0, 0.5);
    }
}

impl MarginLoss for Dpo {
    const ABOUT: About = About {
        formula: "L = -(1 - eps) log sigma(beta h) - eps log sigma(-beta h),    h = rho_w - rho_l",
        paper: "EXPO eq. 7; Rafailov et al. 2023, eq. 7; cDPO: Mitchell 2023, eq. 3",
        config: "configs/hh_dpo.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        smoothed(self.beta * margin, self.label_smoothing)
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }
}

#[cfg(test)]
impl Contract for Dpo {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(LOG_2, -self.beta * (0.5 - self.label_smoothing))
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("label_smoothing", "0.3")]]
    }
}
