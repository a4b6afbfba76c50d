//! IPO with a learned target: how far a pair should be apart is itself fitted.
//!
//! T. Nguyen 2025, "LLM Alignment Fine-tuning via Human Preference: DPO vs IPO". A second scorer v of
//! (y_w, y_l, x) sets the target of the regression, and is paid for targets near 1:
//!
//! ```text
//! L = (beta h - sigma(v))^2 - gamma log sigma(v),    h = rho_w - rho_l
//! ```
//!
//! Here v is free in every pair, so it is at its optimum, which has a closed form, and L is a function
//! of h alone:
//!
//! ```text
//! sigma(v) = min(1, (beta h + sqrt(beta^2 h^2 + 2 gamma)) / 2)
//! ```
//!
//! No gradient flows through it: at the optimum of v its slope is 0 (envelope theorem), and at the
//! bound it stays. As gamma grows the target is 1 everywhere, IPO's (beta h - 1)^2; as it falls, each
//! pair's target is where the pair is. A scorer that is a model itself, shared by pairs, would be
//! another loss.
//!
//! Config: `configs/losses/ipo_learned.toml`. Oracle: `tests/losses/second_formulas.rs`.

#[cfg(test)]
use crate::loss::contract_tests::{Contract, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, MarginLoss, Range, Response};

knobs! {
    /// The knobs of IPO with a learned target.
    IpoLearned {
        /// Weight of the KL to the reference.
        beta: f64 = 0.1, in Range::POSITIVE;
        /// What a target near 1 is worth.
        gamma: f64 = 0.5, in Range::POSITIVE;
    }
}

impl IpoLearned {
    /// sigma(v) at its optimum for this beta h.
    pub fn target(&self, margin: f64) -> f64 {
        let root = margin.hypot((2.0 * self.gamma).sqrt());
        // The same root twice; each side where it has all its digits.
        let target = match margin > 0.0 {
            true => (margin + root) / 2.0,
            false => self.gamma / (root - margin),
        };
        target.min(1.0)
    }
}

impl MarginLoss for IpoLearned {
    const ABOUT: About = About {
        formula: "\
L = (beta h - t)^2 - gamma log t,    h = rho_w - rho_l
t = min(1, (beta h + sqrt(beta^2 h^2 + 2 gamma)) / 2)",
        paper: "T. Nguyen 2025, DPO vs IPO",
        config: "configs/losses/ipo_learned.toml",
    };

    fn of(&self, margin: Dual) -> Dual {
        let margin = self.beta * margin;
        let target = self.target(margin.value);
        let pay = self.gamma * target.ln();
        (margin - target).square() - pay
    }

    fn reward(&self, y: &Response) -> f64 {
        self.beta * y.log_ratio().value
    }
}

#[cfg(test)]
impl Contract for IpoLearned {
    fn step_0(&self) -> Step0 {
        let target = (self.gamma / 2.0).sqrt().min(1.0);
        let value = target * target - self.gamma * target.ln();
        Step0::of_margin(value, -2.0 * self.beta * target)
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("beta", "0.02"), ("gamma", "3")]]
    }
}
