//! Losses of pairs, and of a pair's margin: the file of such a loss is its formula and its knobs.
//!
//! Hides what all of them do alike: how a soft label is averaged over, what they need, the range
//! checks and figures of a divergence.

use super::math::sigmoid_slope;
use super::{About, DivergenceScore, Dual, Knobs, Needs, Objective, Response, Role, Scored};
use crate::error::Result;

/// A loss of a chosen and a rejected response. It is an [`Objective`], averaged over the label.
pub trait PairLoss: Knobs {
    /// Its page.
    const ABOUT: About;

    /// The loss of a pair whose label is hard: `w` is preferred to `l`.
    fn loss(&self, w: &Response, l: &Response) -> Dual;

    /// The implicit reward of a response, in nats times its scale.
    fn reward(&self, y: &Response) -> f64;

    /// What it asks of the data: by default a pair under the policy and the reference.
    fn needs(&self) -> Needs {
        Needs::referenced_pair()
    }

    /// As [`Objective::validate`].
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// As [`Objective::diagnostics`], of a pair.
    fn diagnostics(&self, _w: &Response, _l: &Response) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

impl<T: PairLoss> Objective for T {
    fn about(&self) -> About {
        T::ABOUT
    }

    fn needs(&self) -> Needs {
        PairLoss::needs(self)
    }

    fn validate(&self) -> Result<()> {
        PairLoss::validate(self)
    }

    fn evaluate(&self, example: &Scored, _statistics: &[f64]) -> Dual {
        expected(example, |w, l| self.loss(w, l))
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(PairLoss::reward(self, response))
    }

    fn diagnostics(&self, example: &Scored, _statistics: &[f64]) -> Vec<(&'static str, f64)> {
        let (w, l) = example.expect_pair();
        PairLoss::diagnostics(self, w, l)
    }
}

/// A loss of one number of a pair, its margin. It is a [`PairLoss`] and so an [`Objective`].
pub trait MarginLoss: Knobs {
    /// Its page.
    const ABOUT: About;

    /// The loss at this margin.
    fn of(&self, margin: Dual) -> Dual;

    /// The implicit reward of a response, in nats times its scale.
    fn reward(&self, y: &Response) -> f64;

    /// The score of a response: the log-ratio rho, or that of the divergence that a knob names.
    fn score(&self) -> DivergenceScore {
        DivergenceScore::LOG_RATIO
    }

    /// The margin: by default S_w - S_l, with S the [`score`](Self::score).
    fn margin(&self, w: &Response, l: &Response) -> Dual {
        self.score().margin(w, l)
    }

    /// What it asks of the data: by default a pair under the policy and the reference.
    fn needs(&self) -> Needs {
        Needs::referenced_pair()
    }

    /// As [`Objective::diagnostics`], of a pair: by default those of the score.
    fn diagnostics(&self, w: &Response, l: &Response) -> Vec<(&'static str, f64)> {
        self.score().diagnostics(w, l)
    }
}

impl<T: MarginLoss> PairLoss for T {
    const ABOUT: About = T::ABOUT;

    fn loss(&self, w: &Response, l: &Response) -> Dual {
        self.of(self.margin(w, l))
    }

    fn reward(&self, y: &Response) -> f64 {
        MarginLoss::reward(self, y)
    }

    fn needs(&self) -> Needs {
        MarginLoss::needs(self)
    }

    fn validate(&self) -> Result<()> {
        self.score().validate()
    }

    fn diagnostics(&self, w: &Response, l: &Response) -> Vec<(&'static str, f64)> {
        MarginLoss::diagnostics(self, w, l)
    }
}

/// The loss of a pair, averaged over its label: p loss(y_1 > y_2) + (1 - p) loss(y_2 > y_1).
pub(super) fn expected(example: &Scored, loss: impl Fn(&Response, &Response) -> Dual) -> Dual {
    let (w, l) = example.expect_pair();
    match example.preference {
        None => loss(w, l),
        Some(p) => p * loss(w, l) + (1.0 - p) * loss(l, w),
    }
}

/// d = log pi(y_w|x) - log pi(y_l|x), of sums or of means per token.
pub(super) fn policy_logit(w: &Response, l: &Response, per_token: bool) -> Dual {
    if per_token {
        w.mean_log_prob() - l.mean_log_prob()
    } else {
        &w.policy - &l.policy
    }
}

/// d_r = log r(y_w|x) - log r(y_l|x), of sums or of means per token.
pub(super) fn reference_logit(w: &Response, l: &Response, per_token: bool) -> f64 {
    if per_token {
        w.reference / w.tokens - l.reference / l.tokens
    } else {
        w.reference - l.reference
    }
}

/// -(1 - eps) log sigma(z) - eps log sigma(-z): the loss of DPO where labels are flipped with
/// probability eps.
pub(super) fn smoothed(z: Dual, eps: f64) -> Dual {
    let flipped = eps * (-z.clone()).log_sigmoid();
    -(1.0 - eps) * z.log_sigmoid() - flipped
}

/// What the losses on d report of a pair: `logps/accuracies`, whether d > 0, and `saturated`,
/// whether sigma(d - m) is so flat that the regression's gradient is gone.
pub(super) fn logit_diagnostics(
    example: &Scored,
    per_token: bool,
    margin: f64,
) -> Vec<(&'static str, f64)> {
    let Some((w, l)) = example.pair() else {
        return Vec::new();
    };
    let d = policy_logit(w, l, per_token).value;
    let saturated = sigmoid_slope(d - margin) < 1e-4;
    vec![
        ("logps/accuracies", f64::from(d > 0.0)),
        ("saturated", f64::from(saturated)),
    ]
}

/// What the losses with samples report: `kl`, the mean over samples of log r - log pi, which
/// estimates KL(r || pi). It is biased where the samples were drawn with top-k, top-p or a penalty.
pub(super) fn sample_diagnostics(example: &Scored) -> Option<(&'static str, f64)> {
    let ratios: Vec<f64> = example
        .of(Role::Sampled)
        .map(|y| -y.log_ratio().value)
        .collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    (!ratios.is_empty()).then_some(("kl", mean))
}
