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

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of IPO.
    Ipo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// Whether each rho is divided by the length of its response (TRL, HALOs).
        average_log_prob: bool = false, in "true or false";
    }
}

impl Ipo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let h = if self.average_log_prob {
            w.log_ratio() / w.tokens - l.log_ratio() / l.tokens
        } else {
            w.log_ratio() - l.log_ratio()
        };
        (h - 1.0 / (2.0 * self.beta)).square()
    }
}

impl Objective for Ipo {
    fn about(&self) -> About {
        About {
            formula: "L = (h - 1 / (2 beta))^2,    h = rho_w - rho_l",
            paper: "EXPO eq. 9; Azar et al. 2023, eq. 17",
            config: "configs/hh_ipo.toml",
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
