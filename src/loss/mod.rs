//! Preference objectives as arithmetic on a few numbers.
//!
//! Hides every formula behind [`Objective::evaluate`]: summed log-probs of one example's responses
//! in, the example's loss and its gradient with respect to each policy log-prob out, in f64.
//!
//! *Why*: no objective in scope sees more of a model than summed log-probs and lengths. On the
//! host the formulas read like the papers, are the same for every device, exact under any
//! micro-batching, and are tested in microseconds. The gradient seeds the model's backward pass.

mod about;
mod aot;
mod aot_unpaired;
mod apo_down;
mod apo_zero;
mod bco;
mod cexpo;
#[cfg(test)]
mod contract;
mod cpo;
mod discopop;
mod divergence;
mod dpo;
mod dpop;
mod dual;
mod example;
mod exo_pair;
mod fdpo;
mod gpo;
mod hinge;
mod ipo;
mod ipo_learned;
mod kto;
mod ld_dpo;
mod list;
pub mod math;
mod nca;
mod odpo;
mod orpo;
mod qpo;
mod rdpo;
mod rexpo;
mod robust;
mod sft;
mod sigmoid_norm;
mod simpo;
mod sppo_hard;
mod sum;
mod wpo;

pub use about::{About, Knob};
pub use aot::Aot;
pub use aot_unpaired::AotUnpaired;
pub use apo_down::ApoDown;
pub use apo_zero::ApoZero;
pub use bco::Bco;
pub use cexpo::{Cexpo, Unsupervised};
pub use cpo::Cpo;
pub use discopop::Discopop;
pub use divergence::Divergence;
pub use dpo::Dpo;
pub use dpop::Dpop;
pub use dual::Dual;
pub use example::{Response, Role, Scored, Shared};
pub use exo_pair::ExoPair;
pub use fdpo::Fdpo;
pub use gpo::{Gpo, Shape};
pub use hinge::Hinge;
pub use ipo::Ipo;
pub use ipo_learned::IpoLearned;
pub use kto::Kto;
pub use ld_dpo::LdDpo;
pub use list::Loss;
pub use nca::Nca;
pub use odpo::Odpo;
pub use orpo::Orpo;
pub use qpo::{Psi, Qpo};
pub use rdpo::Rdpo;
pub use rexpo::Rexpo;
pub use robust::Robust;
pub use sft::Sft;
pub use sigmoid_norm::SigmoidNorm;
pub use simpo::Simpo;
pub use sppo_hard::SppoHard;
pub use sum::{Sum, Term};
pub use wpo::Wpo;

use crate::error::{Error, Result};
use about::knobs;

/// What an objective asks of the data and of the training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Roles that every labelled example must have, and that are trained on.
    pub all: &'static [Role],
    /// Roles of which every example must have at least one, and that are trained on.
    pub any: &'static [Role],
    /// Roles that also make an example by themselves, without any preference: prompts of a second
    /// dataset that has only samples.
    pub unlabelled: &'static [Role],
    /// Roles that only the reported figures read, where the data has them.
    pub optional: &'static [Role],
    /// Roles that are scored, without gradient, over the whole optimizer-step batch before the
    /// backward passes, to fill [`Context`].
    pub batch: &'static [Role],
    /// Rows per group in which answers rotate to become [`Role::Mismatched`]; `None`: the dataset.
    pub mismatch_group: Option<usize>,
    /// Whether the formula or its reported metrics read log r.
    pub reference: bool,
    /// Whether a soft label p(y_1 > y_2) has a meaning for it.
    pub soft_labels: bool,
    /// Whether it reads sums over the tokens that both responses of a pair have.
    pub shared: bool,
    /// Whether it reads [`Response::confidence`].
    pub confidence: bool,
    /// Whether [`Role::Sampled`] are samples of the policy itself, drawn anew for every step.
    pub on_policy: bool,
    /// Whether it reads by how much the score of a row's chosen response is the higher one.
    pub scores: bool,
}

impl Needs {
    /// A chosen and a rejected response, their label hard or soft, and nothing else.
    pub(crate) fn pair() -> Self {
        Self {
            all: &[Role::Chosen, Role::Rejected],
            any: &[],
            unlabelled: &[],
            optional: &[],
            batch: &[],
            mismatch_group: None,
            reference: false,
            soft_labels: true,
            shared: false,
            confidence: false,
            scores: false,
            on_policy: false,
        }
    }

    /// As [`pair`](Self::pair), under the policy and the reference.
    pub(crate) fn referenced_pair() -> Self {
        Self {
            reference: true,
            ..Self::pair()
        }
    }

    /// The roles that are computed with gradient; that of an optional one is 0.
    pub fn trained(&self) -> Vec<Role> {
        let read = self.all.iter().chain(self.any).chain(self.optional);
        read.copied().collect()
    }

    /// Checks the roles and the soft label of one example: a missing response, a label outside
    /// [0, 1] and a soft label for a loss that gives it no meaning are input errors.
    pub fn check(&self, roles: &[Role], preference: Option<f64>) -> Result<()> {
        if let Some(p) = preference {
            about::check("preference", p, "[0, 1]")?;
            if !self.soft_labels && p != 1.0 {
                return Err(Error::input(format!("preference = {p} is a soft label"))
                    .hint("this loss has no meaning for one: leave the preference out"));
            }
        }
        if !roles.is_empty() && roles.iter().all(|role| self.unlabelled.contains(role)) {
            return Ok(());
        }
        if let Some(role) = self.all.iter().find(|role| !roles.contains(role)) {
            return Err(Error::input(format!("no {} response", role.name()))
                .hint("the loss reads one in every example"));
        }
        if !self.any.is_empty() && !self.any.iter().any(|role| roles.contains(role)) {
            let names: Vec<&str> = self.any.iter().map(|role| role.name()).collect();
            return Err(Error::input("no response to train on")
                .hint(format!("the loss reads one of: {}", names.join(", "))));
        }
        Ok(())
    }
}

/// What a loss knows of the whole optimizer-step batch. No gradient flows through it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Context {
    /// KTO's reference point z0, in nats.
    pub z0: f64,
    /// Tokens per chosen response, for means over the tokens of the batch.
    pub mean_tokens: f64,
    /// The share of examples with a label, in (0, 1]; the others have only samples.
    pub labelled: f64,
    /// AOT: what the chosen and the rejected response of this example meet in the other sorted list of
    /// the batch, in nats.
    pub matched: [f64; 2],
}

impl Default for Context {
    /// Of a batch of one labelled example with one token.
    fn default() -> Self {
        Self {
            z0: 0.0,
            mean_tokens: 1.0,
            labelled: 1.0,
            matched: [f64::NAN; 2],
        }
    }
}

/// A preference objective with its knobs.
pub trait Objective {
    /// Its page.
    fn about(&self) -> About;

    /// What it asks of the data and of the training step.
    fn needs(&self) -> Needs;

    /// Checks what the knobs' ranges alone do not say; the error names the knob and its value.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// The loss of one example, with its gradient with respect to each response's log pi, 0 for
    /// the responses that it does not read.
    ///
    /// # Panics
    /// Where the example does not pass [`Needs::check`].
    fn evaluate(&self, example: &Scored, batch: &Context) -> Dual;

    /// The implicit reward of a response, as reported in `rewards/*`; `None` for a loss that
    /// defines none.
    fn reward(&self, response: &Response) -> Option<f64>;

    /// The batch statistic, from roles, lengths and the log-probs of the responses named in
    /// [`Needs::batch`]; those of the others are NaN.
    fn context(&self, _batch: &[Scored]) -> Context {
        Context::default()
    }

    /// What each example of the batch is evaluated with: the statistic, and the example's own place
    /// in the batch where the loss reads it.
    fn contexts(&self, batch: &[Scored]) -> Vec<Context> {
        vec![self.context(batch); batch.len()]
    }

    /// Figures of one example that the metrics average over the examples that report them, e.g.
    /// `("saturated", 1.0)`.
    fn diagnostics(&self, _example: &Scored, _batch: &Context) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// The loss of a pair, averaged over its label: p loss(y_1 > y_2) + (1 - p) loss(y_2 > y_1).
fn expected(example: &Scored, loss: impl Fn(&Response, &Response) -> Dual) -> Dual {
    let (w, l) = example.expect_pair();
    match example.preference {
        None => loss(w, l),
        Some(p) => p * loss(w, l) + (1.0 - p) * loss(l, w),
    }
}

/// d = log pi(y_w|x) - log pi(y_l|x), of sums or of means per token.
fn policy_logit(w: &Response, l: &Response, per_token: bool) -> Dual {
    if per_token {
        w.mean_log_prob() - l.mean_log_prob()
    } else {
        &w.policy - &l.policy
    }
}

/// d_r = log r(y_w|x) - log r(y_l|x), of sums or of means per token.
fn reference_logit(w: &Response, l: &Response, per_token: bool) -> f64 {
    if per_token {
        w.reference / w.tokens - l.reference / l.tokens
    } else {
        w.reference - l.reference
    }
}

/// What the losses on d report of a pair: `logps/accuracies`, whether d > 0, and `saturated`,
/// whether sigma(d - m) is so flat that the regression's gradient is gone.
fn logit_diagnostics(example: &Scored, per_token: bool, margin: f64) -> Vec<(&'static str, f64)> {
    let Some((w, l)) = example.pair() else {
        return Vec::new();
    };
    let d = policy_logit(w, l, per_token).value;
    let saturated = math::sigmoid_slope(d - margin) < 1e-4;
    vec![
        ("logps/accuracies", f64::from(d > 0.0)),
        ("saturated", f64::from(saturated)),
    ]
}

/// What the losses with samples report: `kl`, the mean over samples of log r - log pi, which
/// estimates KL(r || pi). It is biased where the samples were drawn with top-k, top-p or a penalty.
fn sample_diagnostics(example: &Scored) -> Option<(&'static str, f64)> {
    let ratios: Vec<f64> = example
        .of(Role::Sampled)
        .map(|y| -y.log_ratio().value)
        .collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    (!ratios.is_empty()).then_some(("kl", mean))
}

/// -(1 - eps) log sigma(z) - eps log sigma(-z): the loss of DPO where labels are flipped with
/// probability eps.
fn smoothed(z: Dual, eps: f64) -> Dual {
    let flipped = eps * (-z.clone()).log_sigmoid();
    -(1.0 - eps) * z.log_sigmoid() - flipped
}

/// The rank of each value, from 0; of equal values the earlier one is lower.
fn ranks(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0; values.len()];
    for (rank, index) in order.into_iter().enumerate() {
        ranks[index] = rank;
    }
    ranks
}
