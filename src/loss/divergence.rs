//! The f-divergence scores S that can stand in place of the log-ratio rho.
//!
//! Wang et al. 2023 (Beyond Reverse KL, arXiv 2309.16240), table 1:
//!
//! ```text
//! reverse KL       S = rho = log pi(y|x) - log r(y|x)
//! Jensen-Shannon   S = log 2 + log sigma(rho)
//! forward KL       S = 1 - e^{-rho}
//! alpha            S = (1 - e^{-alpha rho}) / alpha,    0 < alpha < 1
//! ```
//!
//! S is f'(pi / r), shifted so that it is 0 where the policy is the reference.
//!
//! *Why*: a loss of a pair's margin is a function of Delta = S_w - S_l whatever the divergence is, so
//! the divergence is a knob of each of them and its formulas are here alone.

use super::{Dual, Response, Role, Scored};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;

/// The divergence between the policy and the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// KL(pi || r): the log-ratio itself.
    ReverseKl,
    /// KL(r || pi).
    ForwardKl,
    /// Jensen-Shannon, the EXPO paper's choice for f-DPO.
    JensenShannon,
    /// The alpha-divergence, which lies between the two KLs.
    Alpha,
}

/// Beyond this exponent an exponential of a whole sequence's log-ratio is constant: it overflows.
pub(super) const LARGEST_EXPONENT: f64 = 80.0;

impl Divergence {
    /// S of a response; `alpha` is the knob, 0.5 if not set.
    pub fn score(self, alpha: Option<f64>, y: &Response) -> Dual {
        let rho = y.log_ratio();
        let exp = |exponent: Dual| exponent.at_most(LARGEST_EXPONENT).exp();
        match self {
            Self::ReverseKl => rho,
            Self::JensenShannon => LN_2 + rho.log_sigmoid(),
            Self::ForwardKl => 1.0 - exp(-rho),
            Self::Alpha => {
                let alpha = alpha.unwrap_or(ALPHA);
                (1.0 - exp(-alpha * rho)) / alpha
            }
        }
    }

    /// Delta = S_w - S_l.
    pub fn margin(self, alpha: Option<f64>, w: &Response, l: &Response) -> Dual {
        self.score(alpha, w) - self.score(alpha, l)
    }

    /// Refuses an `alpha` that nothing reads; `knob` is what names the divergence.
    pub(super) fn validate(self, alpha: Option<f64>, knob: &str) -> Result<()> {
        match alpha {
            Some(alpha) if self != Self::Alpha => {
                Err(Error::input(format!("alpha = {alpha} is set"))
                    .hint(format!("only {knob} = \"alpha\" reads it"))
                    .at_keys(&["alpha", knob]))
            }
            _ => Ok(()),
        }
    }

    /// `clamped`: 1 where an exponent of the pair is at its ceiling. Not for the divergences that have
    /// no exponent.
    pub(super) fn diagnostics(
        self,
        alpha: Option<f64>,
        example: &Scored,
    ) -> Vec<(&'static str, f64)> {
        let rate = match self {
            Self::ForwardKl => 1.0,
            Self::Alpha => alpha.unwrap_or(ALPHA),
            Self::ReverseKl | Self::JensenShannon => return Vec::new(),
        };
        let beyond = |y: &Response| -rate * y.log_ratio().value > LARGEST_EXPONENT;
        let clamped =
            example.of(Role::Chosen).any(beyond) || example.of(Role::Rejected).any(beyond);
        vec![("clamped", f64::from(clamped))]
    }
}

const ALPHA: f64 = 0.5;
