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

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs, smoothed};

knobs! {
    /// The knobs of DPO.
    Dpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// eps, the assumed share of flipped labels (cDPO).
        label_smoothing: f64 = 0.0, in "[0, 0.5]";
    }
}

impl Dpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        smoothed(self.beta * h, self.label_smoothing)
    }
}

impl Objective for Dpo {
    fn about(&self) -> About {
        About {
            formula: "L = -(1 - eps) log sigma(beta h) - eps log sigma(-beta h),    h = rho_w - rho_l",
            paper: "EXPO eq. 7; Rafailov et al. 2023, eq. 7; cDPO: Mitchell 2023, eq. 3",
            config: "configs/hh_dpo.toml",
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
