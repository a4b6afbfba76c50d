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
//! Config: `configs/hh_expo_comp.toml`. Oracle: `tests/losses.rs`, `expo_losses_agree_with_60_digits`.

use super::{About, Context, Dual, Needs, Objective, Response, Role, Scored, expected, knobs};
use super::{logit_diagnostics, policy_logit, sample_diagnostics};

knobs! {
    /// The knobs of cEXPO.
    Cexpo {
        /// Weight of the term over samples; the paper has 0.05 on HH and 0.1 on IMDb.
        lambda: f64 = 0.05, in "[0, inf)";
        /// m in nats: d - m stands in place of d.
        margin: f64 = 0.0, in "[0, inf)";
        /// Whether d is the difference of log-probs per token instead of their sums.
        length_normalized: bool = false, in "true or false";
    }
}

impl Cexpo {
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
d = log pi(y_w|x) - log pi(y_l|x),    y_s a sample of the reference",
            paper: "EXPO eq. 13, 15, 16; TYPO eq. 14, 16, 17",
            config: "configs/hh_expo_comp.toml",
            knobs: Self::KNOBS,
        }
    }

    fn needs(&self) -> Needs {
        let needs = Needs {
            // Only the reported rewards and `kl` read it.
            reference: true,
            ..Needs::pair()
        };
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

    fn evaluate(&self, example: &Scored, batch: &Context) -> Dual {
        let supervised = match example.pair() {
            Some(_) => expected(example, |w, l| self.supervised(w, l)) / batch.labelled,
            None => example.zero(),
        };
        let samples = example.of(Role::Sampled).count().max(1) as f64;
        let surprise = example
            .of(Role::Sampled)
            .fold(example.zero(), |sum, y| sum - y.policy.clone());
        supervised + self.lambda * surprise / samples
    }

    fn reward(&self, response: &Response) -> Option<f64> {
        Some(response.log_ratio().value)
    }

    /// The share of pairs: over it, the batch mean of a term that only pairs have is their mean.
    fn context(&self, batch: &[Scored]) -> Context {
        let pairs = batch.iter().filter(|example| example.pair().is_some());
        Context {
            labelled: pairs.count() as f64 / batch.len().max(1) as f64,
            ..Context::default()
        }
    }

    fn diagnostics(&self, example: &Scored, _batch: &Context) -> Vec<(&'static str, f64)> {
        let mut figures = logit_diagnostics(example, self.length_normalized, self.margin);
        figures.extend(sample_diagnostics(example));
        figures
    }
}
