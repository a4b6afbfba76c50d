//! What a loss sees of one example: its responses, scored under the policy and the reference.
//!
//! Hides which number is which variable of the gradient.
//!
//! *Why*: a response's log-prob is a variable of its own index, so a loss names responses by their
//! roles and the training step hands the gradient back by their places.

use super::Dual;
use serde::{Deserialize, Serialize};

/// What a response is to its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// The sums over the first min(|y_w|, |y_l|) tokens, where the loss asks for them.
    pub shared: Option<Shared>,
    /// The mean over tokens of log pi_t - log sum_v pi_v^2, in nats, v over the vocabulary; no
    /// gradient flows through it. NaN where it is not known.
    pub confidence: f64,
}

/// Log-probs of the tokens of a response that are not beyond the shorter response of its pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    /// Under the policy; a variable of the loss.
    pub policy: Dual,
    /// Under the reference.
    pub reference: f64,
}

impl Response {
    /// rho = log pi(y|x) - log r(y|x).
    pub fn log_ratio(&self) -> Dual {
        &self.policy - self.reference
    }

    /// rho of the first min(|y_w|, |y_l|) tokens, NaN where these sums are not there.
    pub fn shared_log_ratio(&self) -> Dual {
        match &self.shared {
            Some(shared) => &shared.policy - shared.reference,
            None => Dual::constant(f64::NAN, self.policy.grad.len()),
        }
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
    /// By how much the chosen response's score is the higher one, where the row has scores.
    pub score_gap: Option<f64>,
}

impl Scored {
    /// 0, with a gradient as long as that of every number of this example.
    pub(super) fn zero(&self) -> Dual {
        let variables = self.responses.first().map_or(0, |y| y.policy.grad.len());
        Dual::constant(0.0, variables)
    }

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
                    shared: None,
                    confidence: f64::NAN,
                }
            };
        Self {
            responses: responses.iter().enumerate().map(response).collect(),
            preference,
            score_gap: None,
        }
    }

    /// With (log pi, log r) of each response's shared tokens. They are variables after those of the
    /// responses: the gradient is then twice as long.
    pub fn with_shared(mut self, sums: &[(f64, f64)]) -> Self {
        let count = self.responses.len();
        let sums = sums.iter().enumerate();
        for (response, (index, &(policy, reference))) in self.responses.iter_mut().zip(sums) {
            response.policy.grad.resize(2 * count, 0.0);
            let policy = Dual::variable(policy, count + index, 2 * count);
            response.shared = Some(Shared { policy, reference });
        }
        self
    }

    /// With the confidence of each response.
    pub fn with_confidence(mut self, confidences: &[f64]) -> Self {
        for (response, &confidence) in self.responses.iter_mut().zip(confidences) {
            response.confidence = confidence;
        }
        self
    }

    /// With the gap between the scores of the pair.
    pub fn with_score_gap(mut self, gap: Option<f64>) -> Self {
        self.score_gap = gap;
        self
    }

    /// The example as it is where the policy is the reference.
    pub fn at_reference(&self) -> Self {
        let mut equal = self.clone();
        for response in &mut equal.responses {
            response.policy.value = response.reference;
            if let Some(shared) = &mut response.shared {
                shared.policy.value = shared.reference;
            }
        }
        equal
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

    pub(super) fn expect_pair(&self) -> (&Response, &Response) {
        self.pair()
            .expect("an example that passed Needs::check has a pair")
    }
}
