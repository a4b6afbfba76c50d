//! Tilted distributions over continuations, exactly.
//!
//! Hides the dynamic programme: from the last slot to the first, over the states that later
//! conditions can tell apart.
//!
//! *Why*: the optima of the objectives are all of the form q(y)^a e^(c s(y)) / Z. One sum over the
//! grammar gives their partition function, and with it everything else.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;

use super::draw_index;
use super::grammar::{Branch, Grammar, Prompt, Story};
use super::template::{FREE, State};
use crate::error::{Error, Result};

/// Proportional to q(y)^`base` e^(`score` s(y)) over the continuations y of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tilt {
    /// The power of the grammar's own probability q.
    pub base: f64,
    /// What the score is multiplied with in the exponent.
    pub score: f64,
}

impl Tilt {
    /// q itself.
    pub const GRAMMAR: Self = Self {
        base: 1.0,
        score: 0.0,
    };
    /// Bradley and Terry's: the policy under which P(1 before 2) = pi_1 / (pi_1 + pi_2), e^s
    /// normalised over the grammar. EXPO's optimum as lambda goes to 0.
    pub const BRADLEY_TERRY: Self = Self {
        base: 0.0,
        score: 1.0,
    };

    /// What DPO and RLHF aim at where q is the reference: q e^(s / `beta`).
    pub fn dpo(beta: f64) -> Result<Self> {
        if !(beta > 0.0 && (1.0 / beta).is_finite()) {
            return Err(Error::must_be("beta", "> 0 and finite", beta));
        }
        Ok(Self {
            base: 1.0,
            score: 1.0 / beta,
        })
    }
}

/// A tilted distribution over the continuations of one prompt.
#[derive(Debug)]
pub struct Tilted<'a> {
    prompt: &'a Prompt<'a>,
    tilt: Tilt,
    /// Per slot, the variables that conditions at or after it read.
    live: Vec<Vec<bool>>,
    nodes: HashMap<(usize, State), Node>,
    root: Node,
}

/// Sums over all continuations from a state.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    log_partition: f64,
    /// Expected score under the tilt.
    score: f64,
    /// Expected log q under the tilt.
    log_q: f64,
    max_score: f64,
}

impl Prompt<'_> {
    /// The distribution over continuations that a tilt makes of the grammar's.
    pub fn tilted(&self, tilt: Tilt) -> Tilted<'_> {
        Tilted::new(self, tilt)
    }
}

impl<'a> Tilted<'a> {
    pub(super) fn new(prompt: &'a Prompt<'a>, tilt: Tilt) -> Self {
        let grammar = prompt.grammar;
        let mut tilted = Self {
            prompt,
            tilt,
            live: live(grammar),
            nodes: HashMap::new(),
            root: Node::default(),
        };
        tilted.root = tilted.sum(grammar.range(1).start, &prompt.state);
        tilted
    }

    /// log of the sum of q(y)^base e^(score s(y)).
    pub fn log_partition(&self) -> f64 {
        self.root.log_partition
    }

    /// Expected score.
    pub fn score(&self) -> f64 {
        self.root.score
    }

    /// Entropy in nats.
    pub fn entropy(&self) -> f64 {
        let energy = self.tilt.base * self.root.log_q + self.tilt.score * self.root.score;
        self.root.log_partition - energy
    }

    /// KL from the grammar's own distribution, KL(this || q), in nats.
    pub fn kl(&self) -> f64 {
        -self.entropy() - self.root.log_q
    }

    /// The log-probability of a continuation with this derivation.
    pub fn log_prob(&self, story: &Story) -> f64 {
        self.tilt.base * story.log_prob + self.tilt.score * story.score - self.root.log_partition
    }

    /// A continuation drawn from it.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Story {
        self.follow(&mut |slot, branches| {
            let weights: Vec<f64> = branches.iter().map(|b| self.log_weight(slot, b)).collect();
            let total = log_sum_exp(&weights);
            draw_index(weights.iter().map(|weight| (weight - total).exp()), rng)
        })
    }

    /// A continuation with the highest score there is; of several the first in the file's order.
    pub fn best(&self) -> Story {
        self.follow(&mut |slot, branches| {
            let score = |b: &Branch| b.choice.score + self.after(slot, b).max_score;
            let scores: Vec<f64> = branches.iter().map(score).collect();
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            scores.iter().position(|&s| s == best).unwrap_or(0)
        })
    }

    fn follow(&self, choose: &mut dyn FnMut(usize, &[Branch]) -> usize) -> Story {
        let mut choose = |slot: usize, branches: &[Branch]| Some(choose(slot, branches));
        let state = self.prompt.state.clone();
        let walk = self.prompt.grammar.walk(1, state, &mut choose);
        walk.expect("a choice was made at every slot").0
    }

    fn key(&self, slot: usize, state: &State) -> (usize, State) {
        let values = state.iter().zip(&self.live[slot]);
        let masked = values.map(|(&value, &live)| if live { value } else { FREE });
        (slot, masked.collect())
    }

    /// The node that a branch of `slot` leads to.
    fn after(&self, slot: usize, branch: &Branch) -> Node {
        self.nodes[&self.key(slot + 1, &branch.after)]
    }

    /// log of the branch's share of the partition function, not normalised.
    fn log_weight(&self, slot: usize, branch: &Branch) -> f64 {
        self.tilt.base * branch.log_q
            + self.tilt.score * branch.choice.score
            + self.after(slot, branch).log_partition
    }

    /// Fills in the node of a state at a slot and all that follow.
    fn sum(&mut self, slot: usize, state: &State) -> Node {
        let key = self.key(slot, state);
        if let Some(node) = self.nodes.get(&key) {
            return *node;
        }
        let grammar = self.prompt.grammar;
        let mut node = Node::default();
        if slot < grammar.slots.len() {
            let branches = grammar.branches(slot, state);
            let nodes: Vec<Node> = branches
                .iter()
                .map(|branch| self.sum(slot + 1, &branch.after))
                .collect();
            let weights: Vec<f64> = branches.iter().map(|b| self.log_weight(slot, b)).collect();
            node.log_partition = log_sum_exp(&weights);
            node.max_score = f64::NEG_INFINITY;
            for ((branch, weight), next) in branches.iter().zip(weights).zip(nodes) {
                let probability = (weight - node.log_partition).exp();
                node.score += probability * (branch.choice.score + next.score);
                node.log_q += probability * (branch.log_q + next.log_q);
                node.max_score = node.max_score.max(branch.choice.score + next.max_score);
            }
        }
        self.nodes.insert(key, node);
        node
    }
}

/// For each slot, and for the end, the variables that conditions from there on read.
fn live(grammar: &Grammar) -> Vec<Vec<bool>> {
    let mut live = vec![vec![false; grammar.variables.len()]];
    for slot in grammar.slots.iter().rev() {
        let mut here = live[live.len() - 1].clone();
        for (variable, _) in slot.options.iter().flat_map(|choice| &choice.when) {
            here[*variable] = true;
        }
        live.push(here);
    }
    live.reverse();
    live
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + values.iter().map(|v| (v - max).exp()).sum::<f64>().ln()
}
