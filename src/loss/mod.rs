//! Preference objectives as arithmetic on a few numbers.
//!
//! Hides every formula behind [`Objective::evaluate`]: summed log-probs of one example's responses
//! in, the example's loss and its gradient with respect to each policy log-prob out, in f64.
//!
//! *Why*: no objective in scope sees more of a model than summed log-probs and lengths. On the
//! host the formulas read like the papers, are the same for every device, exact under any
//! micro-batching, and are tested in microseconds. The gradient seeds the model's backward pass.

mod dual;

pub use dual::Dual;

use crate::error::Result;

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
}

/// What an objective asks of the data and of the training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Roles that every example must have, and that are trained on.
    pub all: &'static [Role],
    /// Roles of which every example must have at least one, and that are trained on.
    pub any: &'static [Role],
    /// Roles that are scored, without gradient, over the whole optimizer-step batch before the
    /// backward passes, to fill [`Context`].
    pub batch: &'static [Role],
    /// Whether the formula or its reported metrics read log r.
    pub reference: bool,
    /// Whether a soft label p(y_1 > y_2) has a meaning for it.
    pub soft_labels: bool,
}

/// What a loss knows of the whole optimizer-step batch. No gradient flows through it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Context {
    /// KTO's reference point z0, in nats.
    pub z0: f64,
}

/// A preference objective with its knobs.
pub trait Objective {
    /// What it asks of the data and of the training step.
    fn needs(&self) -> Needs;

    /// Checks the knobs' ranges; the error names the knob and its range.
    fn validate(&self) -> Result<()>;

    /// The loss of one example, with its gradient with respect to each response's log pi.
    fn evaluate(&self, example: &Scored, batch: &Context) -> Dual;

    /// The implicit reward of a response, as reported in `rewards/*`.
    fn reward(&self, response: &Response) -> f64;

    /// The batch statistic from the responses named in [`Needs::batch`].
    fn context(&self, _batch: &[Scored]) -> Context {
        Context::default()
    }

    /// Figures of one example that the metrics average over the batch, e.g. `("saturated", 1.0)`.
    fn diagnostics(&self, _example: &Scored) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}
