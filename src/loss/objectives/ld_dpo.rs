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

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LOG_2, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, MarginLoss, Needs, Range, Response};

knobs! {
    /// The knobs of LD-DPO.
    LdDpo {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// What a token beyond the length of the shorter response counts.
        alpha: f64 = 0.5, in Range::closed(0.0, 1.0);
    }
}

impl LdDpo {
    /// g, the log-ratio in which the tokens beyond the shorter response count alpha.
    pub fn log_ratio(&self, y: &Response) -> Dual {
        self.alpha * y.log_ratio() + (1.0 - self.alpha) * y.shared_log_ratio()
    }
}

impl MarginLoss for LdDpo {
    const ABOUT: About = About {
        formula: "L = -log sigma(beta (g_w - g_l)),    g = alpha rho + (1 - alpha) rho_shared",
        paper: "Liu et al. 2024 (arXiv 2409.06411)",
        config: "configs/losses/ld_dpo.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        -(self.beta * margin).log_sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * self.log_ratio(y).value
    }

    fn margin(&self, w: &Response, l: &Response) -> Dual {
        self.log_ratio(w) - self.log_ratio(l)
    }

    fn needs(&self) -> Needs {
        Needs {
            shared: true,
            ..Needs::referenced_pair()
        }
    }
}

#[cfg(test)]
impl Contract for LdDpo {
    fn step_0(&self) -> Step0 {
        Step0::of_margin(LOG_2, -self.beta / 2.0)
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("alpha", "0")]]
    }
}
