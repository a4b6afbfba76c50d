//! cEXPO, the compositional EXPO loss (TYPO in the first version of the paper).
//!
//! EXPO eq. 13, 15 and 16; TYPO eq. 14, 16 and 17:
//!
//! ```text
//! L = -log sigma(d) + lambda * mean_s(-log pi(y_s|x)),    d = log pi(y_w|x) - log pi(y_l|x)
//! ```
//!
//! The first term fits the policy itself, not a ratio to the reference, to the preferences. The
//! second is KL(r || pi) up to a constant, on samples y_s of the reference r. It needs no
//! preference, so an example that has only samples is that term alone; each term is then a mean over
//! the examples of the batch that have it.
//!
//! With `unsupervised = "reverse_kl"` the second term is KL(pi || r), which the paper names and leaves
//! to others, on samples of the policy itself, drawn anew for every step. Its gradient is REINFORCE's
//! with a baseline that leaves the sample itself out (Kool et al. 2019), so that it stays unbiased:
//!
//! ```text
//! rho_s = log pi(y_s|x) - log r(y_s|x),    y_s a sample of the policy
//! grad  = lambda mean_s (rho_s - mean_{t != s} rho_t) grad log pi(y_s|x)
//! ```
//!
//! Config: `configs/hh_expo_comp.toml`. Oracle: `tests/losses.rs`, `expo_losses_agree_with_60_digits`.

#[cfg(test)]
use crate::loss::contract_tests::{
    Contract, D, LENGTH, SAMPLE, Settings, Step0, sigmoid, softplus,
};
use crate::loss::knobs::{knobs, words};
use crate::loss::pair::{expected, logit_diagnostics, policy_logit, sample_diagnostics};
use crate::loss::{About, Dual, Needs, Objective, Prepared, Range, Response, Role, Scored};

knobs! {
    /// The knobs of cEXPO.
    Cexpo {
        /// Weight of the term over samples; the paper has 0.05 on HH and 0.1 on IMDb.
        lambda: f64 = 0.05, in Range::NON_NEGATIVE;
        /// m in nats: d - m stands in place of d.
        margin: f64 = 0.0, in Range::NON_NEGATIVE;
        /// Whether d is the difference of log-probs per token instead of their sums.
        length_normalized: bool = false;
        /// The KL of the term over samples: of the reference's, or of the policy's own.
        unsupervised: Unsupervised = Unsupervised::ForwardKl;
    }
}

words! {
    /// The term over samples.
    Unsupervised {
        /// KL(r || pi) up to a constant, on samples of the reference: the paper's.
        "forward_kl" => ForwardKl,
        /// KL(pi || r), on samples of the policy.
        "reverse_kl" => ReverseKl,
    }
}

impl Cexpo {
    /// lambda KL(pi || r) as its samples estimate it; the gradient is REINFORCE's, not that of the
    /// estimate.
    fn reverse_kl(&self, example: &Scored) -> Dual {
        let ratios: Vec<f64> = example
            .of(Role::Sampled)
            .map(|y| y.log_ratio().value)
            .collect();
        let count = ratios.len() as f64;
        let total: f64 = ratios.iter().sum();
        let zero = example.zero();
        let mut term = example.of(Role::Sampled).fold(zero, |sum, y| {
            let ratio = y.log_ratio().value;
            let baseline = (total - ratio) / (count - 1.0).max(1.0);
            sum + (self.lambda * (ratio - baseline) / count) * y.policy.clone()
        });
        term.value = self.lambda * total / count.max(1.0);
        term
    }

    /// softplus(-d): the loss of a labelled pair.
    pub fn supervised(&self, w: &Response, l: &Response) -> Dual {
        let d = policy_logit(w, l, self.length_normalized) - self.margin;
        (-d).softplus()
    }
}

impl Objective for Cexpo {
    fn about(&self) -> About {
        About {
            formula: "\
L = -log sigma(d - m) + lambda mean_s(-log pi(y_s|x))
d = log pi(y_w|x) - log pi(y_l|x),    y_s a sample of the reference
reverse_kl: lambda KL(pi || r) in its place, by REINFORCE on the policy's samples",
            paper: "EXPO eq. 13, 15, 16; TYPO eq. 14, 16, 17",
            config: "configs/hh_expo_comp.toml",
        }
    }

    fn needs(&self) -> Needs {
        let needs = Needs {
            // Only the reported rewards and `kl` read it.
            reference: true,
            ..Needs::pair()
        };
        if self.unsupervised == Unsupervised::ReverseKl && self.lambda > 0.0 {
            let optional = &[Role::Sampled];
            return Needs {
                optional,
                on_policy: true,
                ..needs
            };
        }
        if self.lambda == 0.0 {
            let optional = &[Role::Sampled];
            return Needs { optional, ..needs };
        }
        Needs {
            all: &[Role::Chosen, Role::Rejected, Role::Sampled],
            unlabelled: &[Role::Sampled],
            ..needs
        }
    }

    /// The share of pairs: over it, the batch mean of a term that only pairs have is their mean.
    fn prepare(&self, batch: &[Scored]) -> Prepared {
        let pairs = batch.iter().filter(|example| example.pair().is_some());
        Prepared::of_batch([pairs.count() as f64 / batch.len().max(1) as f64])
    }

    fn evaluate(&self, example: &Scored, statistics: &[f64]) -> Dual {
        let labelled = statistics[0];
        let supervised = match example.pair() {
            Some(_) => expected(example, |w, l| self.supervised(w, l)) / labelled,
            None => example.zero(),
        };
        if self.unsupervised == Unsupervised::ReverseKl {
            return supervised + self.reverse_kl(example);
        }
        let samples = example.of(Role::Sampled).count().max(1) as f64;
        let surprise = example
            .of(Role::Sampled)
            .fold(example.zero(), |sum, y| sum - y.policy.clone());
        supervised + self.lambda * surprise / samples
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(response.log_ratio().value)
    }

    fn diagnostics(&self, example: &Scored, _statistics: &[f64]) -> Vec<(&'static str, f64)> {
        let mut figures = logit_diagnostics(example, self.length_normalized, self.margin);
        let reversed = self.unsupervised == Unsupervised::ReverseKl;
        let kl = sample_diagnostics(example);
        figures.extend(kl.map(|(name, kl)| (name, if reversed { -kl } else { kl })));
        figures
    }
}

#[cfg(test)]
impl Contract for Cexpo {
    fn step_0(&self) -> Step0 {
        let length = if self.length_normalized { LENGTH } else { 1.0 };
        let x = D / length - self.margin;
        let value = softplus(-x) + self.lambda * -(SAMPLE[0] + SAMPLE[1]) / 2.0;
        Step0::of_margin(value, -sigmoid(-x) / length)
    }

    fn sample_slope(&self) -> f64 {
        -self.lambda / 2.0
    }

    fn variants(&self) -> &'static [Settings] {
        &[
            &[("lambda", "0")],
            &[("margin", "0.5")],
            &[("length_normalized", "true"), ("lambda", "10")],
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over all pairs of draws from a softmax the estimate is KL(pi || r) and its gradient that of
    /// the logits, pi_j (rho_j - KL).
    #[test]
    fn reinforce_is_the_gradient_of_the_reverse_kl() {
        let (pi, r) = ([0.5f64, 0.3, 0.2], [0.2f64, 0.5, 0.3]);
        let cexpo = Cexpo {
            lambda: 0.7,
            unsupervised: Unsupervised::ReverseKl,
            ..Cexpo::default()
        };
        let rho = |y: usize| (pi[y] / r[y]).ln();
        let kl: f64 = (0..3).map(|y| pi[y] * rho(y)).sum();
        let (mut value, mut gradient) = (0.0, [0.0; 3]);
        for (s, t) in (0..9).map(|pair| (pair / 3, pair % 3)) {
            let sample = |y: usize| (Role::Sampled, pi[y].ln(), r[y].ln(), 1.0);
            let example = Scored::new(&[sample(s), sample(t)], None);
            let term = cexpo.reverse_kl(&example);
            value += pi[s] * pi[t] * term.value;
            for (y, seed) in [s, t].into_iter().zip(&term.grad) {
                for (logit, sum) in gradient.iter_mut().enumerate() {
                    let slope = f64::from(u8::from(logit == y)) - pi[logit];
                    *sum += pi[s] * pi[t] * seed * slope;
                }
            }
        }
        assert!((value - 0.7 * kl).abs() < 1e-15, "{value}");
        for (logit, sum) in gradient.iter().enumerate() {
            let want = 0.7 * pi[logit] * (rho(logit) - kl);
            assert!((sum - want).abs() < 1e-15, "{gradient:?}");
        }
    }
}
