//! Preference objectives as arithmetic on a few numbers.
//!
//! Hides every formula behind [`Objective::evaluate`]: summed log-probs of one example's responses
//! in, the example's loss and its gradient with respect to each policy log-prob out, in f64.
//!
//! *Why*: no objective in scope sees more of a model than summed log-probs and lengths. On the
//! host the formulas read like the papers, are the same for every device, exact under any
//! micro-batching, and are tested in microseconds. The gradient seeds the model's backward pass.

mod cexpo;
#[cfg(test)]
mod contract;
mod dpo;
mod dual;
mod fdpo;
mod ipo;
mod kto;
mod list;
mod rexpo;
mod sft;
mod simpo;

pub use cexpo::Cexpo;
pub use dpo::Dpo;
pub use dual::Dual;
pub use fdpo::{Divergence, Fdpo};
pub use ipo::Ipo;
pub use kto::Kto;
pub use list::Loss;
pub use rexpo::Rexpo;
pub use sft::Sft;
pub use simpo::Simpo;

use crate::error::{Error, Result};

/// What a response is to its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The preferred response, y_w.
    Chosen,
    /// The dispreferred response, y_l.
    Rejected,
    /// A response drawn from the reference, y_s.
    Sampled,
    /// The response to another prompt: KTO's y' in (x, y').
    Mismatched,
}

impl Role {
    /// Every role.
    pub const ALL: &[Self] = &[
        Self::Chosen,
        Self::Rejected,
        Self::Sampled,
        Self::Mismatched,
    ];

    /// The word for it in files, metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Rejected => "rejected",
            Self::Sampled => "sampled",
            Self::Mismatched => "mismatched",
        }
    }
}

/// One response under the policy and the reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// What it is to its prompt.
    pub role: Role,
    /// log pi(y|x), summed over the response tokens, in nats; a variable of the loss.
    pub policy: Dual,
    /// log r(y|x), summed likewise; NaN where the loss needs no reference and none was scored.
    pub reference: f64,
    /// The number of scored tokens, |y|, the end-of-sequence token included.
    pub tokens: f64,
}

impl Response {
    /// rho = log pi(y|x) - log r(y|x).
    pub fn log_ratio(&self) -> Dual {
        &self.policy - self.reference
    }

    /// abar = log pi(y|x) / |y|.
    pub fn mean_log_prob(&self) -> Dual {
        &self.policy / self.tokens
    }
}

/// One example with its responses scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// In the order of the example; each `policy` is the variable of its own index.
    pub responses: Vec<Response>,
    /// p(y_1 > y_2) in [0, 1] where the row carries a soft label: y_1 is the chosen response.
    pub preference: Option<f64>,
}

impl Scored {
    /// From (role, log pi, log r, tokens) of each response.
    pub fn new(responses: &[(Role, f64, f64, f64)], preference: Option<f64>) -> Self {
        let variables = responses.len();
        let response =
            |(index, &(role, policy, reference, tokens)): (usize, &(Role, f64, f64, f64))| {
                Response {
                    role,
                    policy: Dual::variable(policy, index, variables),
                    reference,
                    tokens,
                }
            };
        Self {
            responses: responses.iter().enumerate().map(response).collect(),
            preference,
        }
    }

    /// The responses of one role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Response> {
        self.responses
            .iter()
            .filter(move |response| response.role == role)
    }

    /// (y_w, y_l), or `None` where the example is not a pair.
    pub fn pair(&self) -> Option<(&Response, &Response)> {
        Some((
            self.of(Role::Chosen).next()?,
            self.of(Role::Rejected).next()?,
        ))
    }

    fn expect_pair(&self) -> (&Response, &Response) {
        self.pair()
            .expect("an example that passed Needs::check has a pair")
    }
}

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
        }
    }

    /// Checks the roles and the soft label of one example: a missing response, a label outside
    /// [0, 1] and a soft label for a loss that gives it no meaning are input errors.
    pub fn check(&self, roles: &[Role], preference: Option<f64>) -> Result<()> {
        if let Some(p) = preference {
            knob("preference", p, (0.0..=1.0).contains(&p), "[0, 1]")?;
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
}

impl Default for Context {
    /// Of a batch of one labelled example with one token.
    fn default() -> Self {
        Self {
            z0: 0.0,
            mean_tokens: 1.0,
            labelled: 1.0,
        }
    }
}

/// A preference objective with its knobs.
pub trait Objective {
    /// What it asks of the data and of the training step.
    fn needs(&self) -> Needs;

    /// Checks the knobs' ranges; the error names the knob, its value and its range.
    fn validate(&self) -> Result<()>;

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
    /// [`Needs::batch`]; where it names none, log-probs are NaN.
    fn context(&self, _batch: &[Scored]) -> Context {
        Context::default()
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
    let saturated = dual::sigmoid_slope(d - margin) < 1e-4;
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

/// Refuses a knob that is outside `range` or not finite.
fn knob(name: &str, value: f64, inside: bool, range: &str) -> Result<()> {
    if inside && value.is_finite() {
        return Ok(());
    }
    Err(Error::input(format!("{name} = {value}")).hint(format!("it lies in {range}")))
}

fn positive(name: &str, value: f64) -> Result<()> {
    knob(name, value, value > 0.0, "(0, inf)")
}

fn at_least_zero(name: &str, value: f64) -> Result<()> {
    knob(name, value, value >= 0.0, "[0, inf)")
}

fn within_unit(name: &str, value: f64) -> Result<()> {
    knob(name, value, (0.0..=1.0).contains(&value), "[0, 1]")
}
