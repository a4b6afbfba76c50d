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

use std::f64::consts::LN_2;

use super::knobs::words;
use super::{Dual, Response};
use crate::error::{Error, Result};

words! {
    /// The divergence between the policy and the reference.
    Divergence {
        /// KL(pi || r): the log-ratio itself.
        "reverse_kl" => ReverseKl,
        /// KL(r || pi).
        "forward_kl" => ForwardKl,
        /// Jensen-Shannon, the EXPO paper's choice for f-DPO.
        "jensen_shannon" => JensenShannon,
        /// The alpha-divergence, which lies between the two KLs.
        "alpha" => Alpha,
    }
}

/// Beyond this exponent an exponential of a whole sequence's log-ratio is constant: it overflows.
pub(super) const LARGEST_EXPONENT: f64 = 80.0;

/// alpha where the knob is not set.
const ALPHA: f64 = 0.5;

/// S of a response, as a loss's knobs choose it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DivergenceScore {
    /// The divergence.
    pub divergence: Divergence,
    /// The knob `alpha`, which only [`Divergence::Alpha`] reads; 0.5 if not set.
    pub alpha: Option<f64>,
    /// The knob that names the divergence.
    pub knob: &'static str,
}

impl DivergenceScore {
    /// The score of the reverse KL, rho.
    pub const LOG_RATIO: Self = Self {
        divergence: Divergence::ReverseKl,
        alpha: None,
        knob: "",
    };

    /// S of a response.
    pub fn of(self, y: &Response) -> Dual {
        let rho = y.log_ratio();
        let exp = |exponent: Dual| exponent.at_most(LARGEST_EXPONENT).exp();
        match self.divergence {
            Divergence::ReverseKl => rho,
            Divergence::JensenShannon => LN_2 + rho.log_sigmoid(),
            Divergence::ForwardKl => 1.0 - exp(-rho),
            Divergence::Alpha => {
                let alpha = self.alpha.unwrap_or(ALPHA);
                (1.0 - exp(-alpha * rho)) / alpha
            }
        }
    }

    /// Delta = S_w - S_l.
    pub fn margin(self, w: &Response, l: &Response) -> Dual {
        self.of(w) - self.of(l)
    }

    /// Refuses an `alpha` that nothing reads.
    pub(super) fn validate(self) -> Result<()> {
        match self.alpha {
            Some(alpha) if self.divergence != Divergence::Alpha => {
                let error = Error::input(format!("alpha = {alpha} is set"));
                Err(error.hint(format!("only {} = \"alpha\" reads it", self.knob)))
            }
            _ => Ok(()),
        }
    }

    /// `clamped`: 1 where an exponent of the pair is at its ceiling. Nothing for the divergences
    /// that have no exponent.
    pub(super) fn diagnostics(self, w: &Response, l: &Response) -> Vec<(&'static str, f64)> {
        let rate = match self.divergence {
            Divergence::ForwardKl => 1.0,
            Divergence::Alpha => self.alpha.unwrap_or(ALPHA),
            Divergence::ReverseKl | Divergence::JensenShannon => return Vec::new(),
        };
        let beyond = |y: &Response| -rate * y.log_ratio().value > LARGEST_EXPONENT;
        vec![("clamped", f64::from(beyond(w) || beyond(l)))]
    }
}

#[cfg(test)]
impl Divergence {
    /// f''(1): the slope of S at rho = 0.
    pub(super) fn curvature(self) -> f64 {
        match self {
            Self::JensenShannon => 0.5,
            _ => 1.0,
        }
    }
}
