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
//! Config: `configs/losses/orpo.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LENGTH, REFERENCE, Step0, sigmoid, softplus};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, Needs, PairLoss, Range, Response};

knobs! {
    /// The knobs of ORPO.
    Orpo {
        /// Weight of the odds ratio.
        lambda: f64 = 0.1, in Range::POSITIVE;
    }
}

/// The most that a mean log-prob counts in the odds.
const LARGEST_MEAN: f64 = -1e-9;

fn log_odds(y: &Response) -> Dual {
    let mean = y.mean_log_prob().at_most(LARGEST_MEAN);
    mean.clone() - mean.log1m_exp()
}

impl PairLoss for Orpo {
    const ABOUT: About = About {
        formula: "\
L = -log pi(y_w|x) / |y_w| - lambda log sigma(odds_w - odds_l)
odds = abar - log(1 - e^{abar}),    abar = log pi(y|x) / |y|",
        paper: "Hong et al. 2024 (arXiv 2403.07691), eq. 6 and 7",
        config: "configs/losses/orpo.toml",
    };

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        let odds = log_odds(w) - log_odds(l);
        -w.mean_log_prob() - self.lambda * odds.log_sigmoid()
    }

    fn reward(&self, y: &Response) -> f64 {
        self.lambda * y.mean_log_prob().value
    }

    fn needs(&self) -> Needs {
        Needs::pair()
    }
}

#[cfg(test)]
impl Contract for Orpo {
    fn step_0(&self) -> Step0 {
        let (w, l) = (REFERENCE[0] / LENGTH, REFERENCE[1] / LENGTH);
        let odds = |mean: f64| mean.exp() / (1.0 - mean.exp());
        let x = (odds(w) / odds(l)).ln();
        let slope = |mean: f64| self.lambda * sigmoid(-x) / (1.0 - mean.exp()) / LENGTH;
        Step0 {
            value: -w + self.lambda * softplus(-x),
            chosen: -1.0 / LENGTH - slope(w),
            rejected: slope(l),
        }
    }
}
