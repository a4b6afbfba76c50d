//! ORPO: supervised fine-tuning with an odds ratio, and no reference.
//!
//! Hong et al. 2024 (arXiv 2403.07691), eq. 6 and 7:
//!
//! ```text
//! L = -log pi(y_w|x) / |y_w| - lambda log sigma(odds_w - odds_l)
//! odds = abar - log(1 - e^{abar}),    abar = log pi(y|x) / |y|
//! ```
//!
//! The odds have a pole at abar = 0, a response of probability 1; abar is held below -1e-9, which is
//! beyond the resolution of f32, and carries no gradient there. The reward is lambda abar.
//!
//! Config: `configs/losses/orpo.toml`. Oracle: `tests/losses/field.rs`.

use super::{About, Context, Dual, Needs, Objective, Response, Scored, expected, knobs};

knobs! {
    /// The knobs of ORPO.
    Orpo {
        /// Weight of the odds ratio.
        lambda: f64 = 0.1, in "(0, inf)";
    }
}

/// The most that a mean log-prob counts in the odds.
const LARGEST_MEAN: f64 = -1e-9;

fn log_odds(y: &Response) -> Dual {
    let mean = y.mean_log_prob().at_most(LARGEST_MEAN);
    mean.clone() - mean.log1m_exp()
}

impl Orpo {
    /// The loss of a pair with a hard label.
    pub fn loss(&self, w: &Response, l: &Response) -> Dual {
        let odds = log_odds(w) - log_odds(l);
        -w.mean_log_prob() - self.lambda * odds.log_sigmoid()
    }
}

impl Objective for Orpo {
    fn about(&self) -> About {
        About {
            formula: "\
L = -log pi(y_w|x) / |y_w| - lambda log sigma(odds_w - odds_l)
odds = abar - log(1 - e^{abar}),    abar = log pi(y|x) / |y|",
            paper: "Hong et al. 2024 (arXiv 2403.07691), eq. 6 and 7",
            config: "configs/losses/orpo.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        Needs::pair()
    }

    fn evaluate(&self, example: &Scored, _batch: &Context) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(self.lambda * response.mean_log_prob().value)
    }
}
