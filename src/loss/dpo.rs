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

use super::{Context, Dual, Needs, Objective, Response, Scored, expected, knob, positive};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// The knobs of DPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpo {
    /// Weight of the KL to the reference, in (0, inf).
    pub beta: f64,
    /// eps, the assumed share of flipped labels, in [0, 0.5].
    pub label_smoothing: f64,
}

impl Default for Dpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            label_smoothing: 0.0,
        }
    }
}

impl Dpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = w.log_ratio() - l.log_ratio();
        let eps = self.label_smoothing;
        -(1.0 - eps) * (self.beta * &h).log_sigmoid() - eps * (-self.beta * &h).log_sigmoid()
    }
}

impl Objective for Dpo {
    fn needs(&self) -> Needs {
        Needs {
            reference: true,
            ..Needs::pair()
        }
    }

    fn validate(&self) -> Result<()> {
        positive("beta", self.beta)?;
        let eps = self.label_smoothing;
        knob(
            "label_smoothing",
            eps,
            (0.0..=0.5).contains(&eps),
            "[0, 0.5]",
        )
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }
}
