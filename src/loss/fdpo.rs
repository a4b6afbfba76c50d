//! f-DPO: DPO under another divergence than the reverse KL.
//!
//! Wang et al. 2023 (Beyond Reverse KL), table 1; EXPO section 2.4 and appendix E.3:
//!
//! ```text
//! L = -log sigma(beta (S_w - S_l)),    rho = log pi(y|x) - log r(y|x)
//! reverse KL       S = rho                          (this is DPO)
//! Jensen-Shannon   S = log 2 + log sigma(rho)
//! forward KL       S = 1 - e^{-rho}
//! alpha            S = (1 - e^{-alpha rho}) / alpha,    0 < alpha < 1
//! ```
//!
//! S is f'(pi / r), shifted so that it is 0 where the policy is the reference. TRL's
//! `f_alpha_divergence_coef` is 1 - alpha of the paper and of this file.
//!
//! Config: `configs/hh_fdpo_js.toml`. Oracle: `tests/losses.rs`, `losses_agree_with_their_peers`.

use super::{Context, Dual, Needs, Objective, Response, Role, Scored, expected, knob, positive};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;

/// The divergence between the policy and the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// KL(pi || r): plain DPO.
    ReverseKl,
    /// KL(r || pi).
    ForwardKl,
    /// Jensen-Shannon, the papers' choice.
    JensenShannon,
    /// The alpha-divergence, which lies between the two KLs.
    Alpha,
}

/// The knobs of f-DPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fdpo {
    /// Weight of the divergence from the reference, in (0, inf).
    pub beta: f64,
    /// The divergence.
    pub divergence: Divergence,
    /// alpha, in (0, 1); read by the alpha-divergence only, where it is 0.5 if not set.
    pub alpha: Option<f64>,
}

impl Default for Fdpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            divergence: Divergence::JensenShannon,
            alpha: None,
        }
    }
}

/// Beyond this exponent S is constant: e^{-rho} of a whole sequence overflows.
const LARGEST_EXPONENT: f64 = 80.0;

impl Fdpo {
    /// S(rho) of a response.
    pub fn score(&self, y: &Response) -> Dual {
        let rho = y.log_ratio();
        let exp = |exponent: Dual| exponent.at_most(LARGEST_EXPONENT).exp();
        match self.divergence {
            Divergence::ReverseKl => rho,
            Divergence::JensenShannon => LN_2 + rho.log_sigmoid(),
            Divergence::ForwardKl => 1.0 - exp(-rho),
            Divergence::Alpha => (1.0 - exp(-self.alpha() * rho)) / self.alpha(),
        }
    }

    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        -(self.beta * (self.score(w) - self.score(l))).log_sigmoid()
    }

    fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(0.5)
    }

    /// What multiplies -rho in the exponent of S, where S has one.
    fn exponent_rate(&self) -> Option<f64> {
        match self.divergence {
            Divergence::ForwardKl => Some(1.0),
            Divergence::Alpha => Some(self.alpha()),
            Divergence::ReverseKl | Divergence::JensenShannon => None,
        }
    }
}

impl Objective for Fdpo {
    fn needs(&self) -> Needs {
        Needs {
            reference: true,
            ..Needs::pair()
        }
    }

    fn validate(&self) -> Result<()> {
        positive("beta", self.beta)?;
        match (self.divergence, self.alpha) {
            (Divergence::Alpha, Some(alpha)) => {
                knob("alpha", alpha, 0.0 < alpha && alpha < 1.0, "(0, 1)")
            }
            (_, None) => Ok(()),
            (_, Some(alpha)) => Err(Error::input(format!("alpha = {alpha} is set"))
                .hint("only divergence = \"alpha\" reads it")),
        }
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * response.log_ratio().value)
    }

    /// `clamped`: 1 where an exponent of the example is at its ceiling. Not for the divergences
    /// that have no exponent.
    fn diagnostics(&self, example: &Scored, _batch: &Context) -> Vec<(&'static str, f64)> {
        let Some(rate) = self.exponent_rate() else {
            return Vec::new();
        };
        let beyond = |y: &Response| -rate * y.log_ratio().value > LARGEST_EXPONENT;
        let clamped =
            example.of(Role::Chosen).any(beyond) || example.of(Role::Rejected).any(beyond);
        vec![("clamped", f64::from(clamped))]
    }
}
