//! LD-DPO: DPO in which the tokens by which one response is longer count less.
//!
//! Liu et al. 2024 (arXiv 2409.06411):
//!
//! ```text
//! L = -log sigma(beta (g_w - g_l)),    g = alpha rho + (1 - alpha) rho_shared
//! ```
//!
//! rho = log pi(y|x) - log r(y|x) over all tokens, rho_shared over the first min(|y_w|, |y_l|) of them. At
//! alpha = 1 it is DPO, at alpha = 0 what is beyond the shorter response counts nothing.
//!
//! Config: `configs/losses/ld_dpo.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of LD-DPO.
    LdDpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in "(0, inf)";
        /// What a token beyond the length of the shorter response counts.
        alpha: f64 = 0.5, in "[0, 1]";
    }
}

impl LdDpo {
    /// g, the log-ratio in which the tokens beyond the shorter response count alpha.
    pub fn log_ratio(&self, y: &Response) -> Dual {
        self.alpha * y.log_ratio() + (1.0 - self.alpha) * y.shared_log_ratio()
    }

    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        -(self.beta * (self.log_ratio(w) - self.log_ratio(l))).log_sigmoid()
    }
}

impl Objective for LdDpo {
    fn about(&self) -> About {
        About {
            formula: "L = -log sigma(beta (g_w - g_l)),    g = alpha rho + (1 - alpha) rho_shared",
            paper: "Liu et al. 2024 (arXiv 2409.06411)",
            config: "configs/losses/ld_dpo.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            shared: true,
            ..Needs::referenced_pair()
        }
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.beta * self.log_ratio(response).value)
    }
}
