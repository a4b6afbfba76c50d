//! A prompt whose best policy is known, the comparisons drawn from it, and a loss on them.
//!
//! *Why*: a comparison of a few responses has few outcomes, so every protocol is a list of weighted
//! [`Example`]s: exact preferences, drawn pairs, a minibatch. What a loss is asked is always the
//! same: [`Objective::evaluate_alone`](crate::loss::Objective::evaluate_alone) on log-probs of one token.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use super::policy::{log_softmax, logs, pull_back};
use crate::error::{Error, Result};
use crate::loss::{Loss, Objective, Role, Scored};

/// Changing how pairs are drawn means changing this text, and with it every draw.
const VERSION: &[u8; 16] = b"expo bandit v1  ";

/// The most responses of a prompt: every pair of them is looked at.
const MOST_RESPONSES: usize = 1000;

/// One prompt: the policy whose Bradley-Terry choices the preferences are, and where training
/// begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// pi*: p(i before j) = pi*_i / (pi*_i + pi*_j).
    pub optimal: Vec<f64>,
    /// r.
    pub reference: Vec<f64>,
}

/// A comparison of two responses of a prompt, with its share of the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example {
    /// The prompt's index.
    pub prompt: usize,
    /// The preferred response's index.
    pub chosen: usize,
    /// The other one's.
    pub rejected: usize,
    /// y_s, for losses that read samples; `None` stands for the expectation over r.
    pub sampled: Option<usize>,
    /// Its share.
    pub weight: f64,
}

/// A number with its gradient with respect to theta.
#[derive(Debug, Clone, PartialEq)]
pub struct Slope {
    /// The number.
    pub value: f64,
    /// The gradient.
    pub grad: Vec<f64>,
}

impl Prompt {
    /// Refuses anything but a pair of distributions over the same responses.
    pub fn validate(&self) -> Result<()> {
        for (key, p) in [("optimal", &self.optimal), ("reference", &self.reference)] {
            let sum: f64 = p.iter().sum();
            let wrong = |what: String| Err(Error::input(what).at_key(key));
            if p.len() < 2 {
                return wrong(format!("{} probabilities; a choice needs 2", p.len()));
            }
            if p.len() > MOST_RESPONSES {
                let count = p.len();
                return wrong(format!("{count} probabilities; at most {MOST_RESPONSES}"));
            }
            if let Some(x) = p.iter().find(|x| !(**x > 0.0 && x.is_finite())) {
                return wrong(format!("a probability must be > 0 and finite (got {x})"));
            }
            if (sum - 1.0).abs() > 1e-9 {
                return wrong(format!("the probabilities add up to {sum}, not to 1"));
            }
        }
        let (n, m) = (self.optimal.len(), self.reference.len());
        if n != m {
            let what = format!("{n} responses in optimal, {m} in reference");
            return Err(Error::input(what)
                .hint("give each one probability in both")
                .at_keys(&["optimal", "reference"]));
        }
        Ok(())
    }

    /// The number of responses.
    pub fn responses(&self) -> usize {
        self.optimal.len()
    }

    /// p(i before j).
    pub fn preference(&self, i: usize, j: usize) -> f64 {
        self.optimal[i] / (self.optimal[i] + self.optimal[j])
    }

    /// Optimal policy and reference in each other's place.
    pub fn swapped(&self) -> Self {
        Self {
            optimal: self.reference.clone(),
            reference: self.optimal.clone(),
        }
    }

    /// Every comparison of two different responses with its exact share.
    pub fn population(&self) -> Vec<Example> {
        let n = self.responses();
        let ordered = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
        let pairs = (n * (n - 1) / 2) as f64;
        let example = |(i, j)| Example {
            prompt: 0,
            chosen: i,
            rejected: j,
            sampled: None,
            weight: self.preference(i, j) / pairs,
        };
        ordered.filter(|(i, j)| i != j).map(example).collect()
    }
}

/// Draws of comparisons and samples.
pub struct Draws(ChaCha8Rng);

impl Draws {
    /// The draws of one seed; streams do not meet.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&stream.to_le_bytes());
        key[16..].copy_from_slice(VERSION);
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Pairs of `count` draws of two responses each, uniform; two equal ones are not a pair.
    pub fn pairs(&mut self, prompts: &[Prompt], index: usize, count: usize) -> Vec<Example> {
        let prompt = &prompts[index];
        let n = prompt.responses();
        let mut examples = Vec::new();
        for _ in 0..count {
            let (i, j) = (self.index(n), self.index(n));
            if i == j {
                continue;
            }
            let first = self.unit() < prompt.preference(i, j);
            let (chosen, rejected) = if first { (i, j) } else { (j, i) };
            examples.push(Example {
                prompt: index,
                chosen,
                rejected,
                sampled: None,
                weight: 1.0,
            });
        }
        examples
    }

    /// Gives each example a sample of its prompt's reference.
    pub fn samples(&mut self, prompts: &[Prompt], examples: &mut [Example]) {
        for example in examples {
            let reference = &prompts[example.prompt].reference;
            let mut rest = self.unit();
            let found = reference.iter().position(|p| {
                rest -= p;
                rest < 0.0
            });
            example.sampled = Some(found.unwrap_or(reference.len() - 1));
        }
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn index(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }
}

/// The same examples with weights that add up to 1, equal ones as one.
pub fn gathered(examples: &[Example]) -> Vec<Example> {
    let total: f64 = examples.iter().map(|example| example.weight).sum();
    let mut gathered: Vec<Example> = Vec::new();
    for example in examples {
        let weight = example.weight / total;
        let kind = |e: &Example| (e.prompt, e.chosen, e.rejected, e.sampled);
        match gathered
            .iter_mut()
            .find(|other| kind(other) == kind(example))
        {
            Some(other) => other.weight += weight,
            None => gathered.push(Example { weight, ..*example }),
        }
    }
    gathered
}

/// A loss on the responses of one prompt.
pub struct Task<'a> {
    loss: &'a Loss,
    reference: &'a [f64],
    log_reference: Vec<f64>,
    samples: bool,
}

impl<'a> Task<'a> {
    /// The loss must have a meaning on single responses.
    pub fn new(loss: &'a Loss, prompt: &'a Prompt) -> Self {
        Self {
            loss,
            reference: &prompt.reference,
            log_reference: logs(&prompt.reference),
            samples: reads_samples(loss),
        }
    }

    /// The weighted sum of the examples' losses under softmax(theta).
    pub fn evaluate<'e>(
        &self,
        theta: &[f64],
        examples: impl IntoIterator<Item = &'e Example>,
    ) -> Slope {
        let log_policy = log_softmax(theta);
        let mut value = 0.0;
        let mut gradient = vec![0.0; theta.len()];
        for example in examples {
            for (sample, share) in self.drawn(example) {
                let indices = [Some(example.chosen), Some(example.rejected), sample];
                let roles = [Role::Chosen, Role::Rejected, Role::Sampled];
                let present = roles.into_iter().zip(indices.into_iter().flatten());
                let scored: Vec<_> = present
                    .map(|(role, i)| (role, log_policy[i], self.log_reference[i], 1.0))
                    .collect();
                let dual = self.loss.evaluate_alone(&Scored::new(&scored, None));
                let weight = example.weight * share;
                value += weight * dual.value;
                for (i, slope) in indices.into_iter().flatten().zip(dual.grad) {
                    gradient[i] += weight * slope;
                }
            }
        }
        Slope {
            value,
            grad: pull_back(&gradient, &log_policy),
        }
    }

    /// The samples of an example with their probabilities; one without index where none is read.
    fn drawn(&self, example: &Example) -> Vec<(Option<usize>, f64)> {
        match (self.samples, example.sampled) {
            (false, _) => vec![(None, 1.0)],
            (true, Some(index)) => vec![(Some(index), 1.0)],
            (true, None) => {
                let all = self.reference.iter().enumerate();
                all.map(|(index, p)| (Some(index), *p)).collect()
            }
        }
    }
}

/// Whether a loss learns from samples of the reference.
pub fn reads_samples(loss: &Loss) -> bool {
    loss.needs().all.contains(&Role::Sampled)
}

/// Why a loss has no meaning on comparisons of single responses; `None` where it has one.
pub fn unsuited(loss: &Loss) -> Option<Error> {
    let needs = loss.needs();
    let pair = [
        (Role::Chosen, -1.0, -1.0, 1.0),
        (Role::Rejected, -1.0, -1.0, 1.0),
    ];
    let sample = (Role::Sampled, -1.0, -1.0, 1.0);
    let given: Vec<_> = match reads_samples(loss) {
        true => pair.into_iter().chain([sample]).collect(),
        false => pair.to_vec(),
    };
    let roles: Vec<Role> = given.iter().map(|response| response.0).collect();
    let value = || loss.evaluate_alone(&Scored::new(&given, None)).value;
    let why = if needs.on_policy {
        "it draws samples of the policy while it trains".to_owned()
    } else if let Some(role) = needs.batch.first() {
        format!("it reads {} responses of whole batches", role.name())
    } else if let Err(error) = needs.check(&roles, None) {
        error.to_string()
    } else if !value().is_finite() {
        "it reads more of a model than log-probs".to_owned()
    } else {
        return None;
    };
    let error = Error::input(format!("the loss {} has no bandit: {why}", loss.name()));
    Some(error.hint("name losses of pairs, e.g. dpo"))
}
