//! `[sample]`: how the next token is drawn from a row of logits.
//!
//! Hides the logits processors and the random numbers. As in transformers, in this order: repetition
//! penalty, temperature, top-k, top-p, min-p.
//!
//! *Why*: a draw depends on (seed, prompt, sample number, position) and the logits alone, not on
//! what else is in the batch, so a file can be continued, or drawn in other parts, and stay the
//! same file.

mod choose;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Changing how numbers are drawn means changing this text, and with it every sample.
const VERSION: &str = "expo sample v1";

/// The most responses per prompt, and the most sequences at once: more is a slip of the keyboard, and
/// memory for them is asked for at the start.
const MOST_SAMPLES: usize = 1_000_000;
const MOST_AT_ONCE: usize = 65_536;

/// The `[sample]` section. The defaults draw from the model itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Logits are divided by it, in [1e-6, inf).
    pub temperature: f64,
    /// Only so many most likely tokens are drawn from; 0: all.
    pub top_k: usize,
    /// Only the smallest set of most likely tokens is drawn from whose mass reaches it, in (0, 1].
    pub top_p: f64,
    /// Only tokens are drawn from that are at least so likely as the most likely one times it, in [0, 1];
    /// 0: all.
    pub min_p: f64,
    /// For every token already in prompt or response a positive logit is divided by it and a
    /// negative one multiplied, in (0, inf); 1: off.
    pub repetition_penalty: f64,
    /// Whether the most likely token is taken instead of a draw.
    pub greedy: bool,
    /// A response ends before the first of these texts that it has.
    pub stop: Vec<String>,
    /// The most tokens of a response.
    pub max_new_tokens: usize,
    /// Responses per prompt.
    pub num_samples: usize,
    /// Sequences computed together. On the CPU responses do not depend on it, on a GPU not beyond
    /// rounding.
    pub batch_size: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            greedy: false,
            stop: Vec::new(),
            max_new_tokens: 256,
            num_samples: 1,
            batch_size: 32,
            seed: 0,
        }
    }
}

impl SampleConfig {
    /// Checks the ranges of the keys and how they go together.
    pub fn validate(&self) -> Result<()> {
        let above_zero = |x: f64| x > 0.0 && x.is_finite();
        // Below, the quotient may be no number.
        let above_least = |x: f64| x >= 1e-6 && x.is_finite();
        let checks = [
            (
                "temperature",
                self.temperature,
                above_least(self.temperature),
                "in [1e-6, inf)",
            ),
            (
                "top_p",
                self.top_p,
                self.top_p > 0.0 && self.top_p <= 1.0,
                "in (0, 1]",
            ),
            (
                "min_p",
                self.min_p,
                (0.0..=1.0).contains(&self.min_p),
                "in [0, 1]",
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                above_zero(self.repetition_penalty),
                "> 0 and finite",
            ),
        ];
        for (key, value, valid, range) in checks {
            if !valid {
                let error = Error::must_be(key, range, value);
                return Err(match key {
                    "temperature" => error.hint("greedy = true takes the most likely token"),
                    _ => error,
                });
            }
        }
        if self.max_new_tokens == 0 {
            return Err(Error::must_be("max_new_tokens", ">= 1", 0));
        }
        for (key, count, most) in [
            ("num_samples", self.num_samples, MOST_SAMPLES),
            ("batch_size", self.batch_size, MOST_AT_ONCE),
        ] {
            if !(1..=most).contains(&count) {
                return Err(Error::must_be(key, format!("in [1, {most}]"), count));
            }
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::input("stop has an empty text")
                .hint("every response would end before its first token")
                .at_key("stop"));
        }
        if self.greedy {
            let default = Self::default();
            let unread = [
                ("temperature", self.temperature != default.temperature),
                ("top_k", self.top_k != default.top_k),
                ("top_p", self.top_p != default.top_p),
                ("min_p", self.min_p != default.min_p),
                ("num_samples", self.num_samples != default.num_samples),
                ("seed", self.seed != default.seed),
            ];
            if let Some((key, _)) = unread.iter().find(|(_, set)| *set) {
                return Err(
                    Error::input(format!("{key} has no effect where greedy is true"))
                        .hint("leave one of the two out")
                        .at_keys(&[key, "greedy"]),
                );
            }
        }
        Ok(())
    }

    /// Whether what is drawn is not a sample of the model itself.
    pub fn is_biased(&self) -> bool {
        let uncut = self.top_k == 0 && self.top_p == 1.0 && self.min_p == 0.0;
        let plain = uncut && self.temperature == 1.0 && self.repetition_penalty == 1.0;
        self.greedy || !plain || !self.stop.is_empty()
    }
}

/// The log-prob of `id` under the softmax of logits, in nats: the model's own log-prob, whatever is drawn from.
pub fn log_prob(logits: &[f32], id: u32) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let above = |x: f32| f64::from(x) - f64::from(top);
    let sum: f64 = logits.iter().map(|&x| above(x).exp()).sum();
    above(logits[id as usize]) - sum.ln()
}

/// The random numbers of one response, by position.
pub struct Draws(ChaCha8Rng);

impl Draws {
    /// Of sample number `index` of a prompt; where prompts are answered again and again, as in a run that
    /// samples its own policy, in one of many rounds.
    pub fn new(seed: u64, round: Option<u64>, prompt: &[u32], index: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(VERSION);
        hasher.update(seed.to_le_bytes());
        hasher.update(index.to_le_bytes());
        if let Some(round) = round {
            hasher.update(b"round");
            hasher.update(round.to_le_bytes());
        }
        for id in prompt {
            hasher.update(id.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(hasher.finalize().into()))
    }

    /// Uniform in [0, 1), of the token at `position` of the response.
    pub fn uniform(&mut self, position: usize) -> f64 {
        self.0.set_word_pos(2 * position as u128);
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut SampleConfig)) -> SampleConfig {
        let mut config = SampleConfig::default();
        change(&mut config);
        config
    }

    fn kept(config: &SampleConfig, logits: &[f32]) -> Vec<usize> {
        let kept = config.process(logits, &[]);
        kept.into_iter().map(|(id, _)| id as usize).collect()
    }

    #[test]
    fn top_k_keeps_ties_and_top_p_the_token_that_reaches_it() {
        let logits = [1.0, 3.0, 2.0, 2.0, 0.0];
        assert_eq!(kept(&config(|c| c.top_k = 2), &logits), [1, 2, 3]);
        assert_eq!(kept(&config(|c| c.top_k = 9), &logits), [0, 1, 2, 3, 4]);
        // Probabilities 1/2, 1/4, 1/8, 1/8.
        let halves = [8f32, 4.0, 2.0, 2.0].map(f32::ln);
        assert_eq!(kept(&config(|c| c.top_p = 0.49), &halves), [0]);
        assert_eq!(kept(&config(|c| c.top_p = 0.51), &halves), [0, 1]);
        assert_eq!(kept(&config(|c| c.top_p = 0.76), &halves), [0, 1, 2]);
        assert_eq!(kept(&config(|c| c.top_p = 1e-9), &halves), [0]);
        assert_eq!(kept(&config(|c| c.min_p = 0.4), &halves), [0, 1]);
        assert_eq!(kept(&config(|c| c.min_p = 0.2), &halves), [0, 1, 2, 3]);
        assert_eq!(kept(&config(|c| c.min_p = 1.0), &halves), [0]);
    }

    /// Of a vocabulary too large to look at whole, the same are kept as by looking at all of it.
    #[test]
    fn candidates_of_a_large_vocabulary_are_complete() {
        let size = 50_304;
        let mut logits: Vec<f32> = (0..size).map(|i| -1e-4 * (i % 64) as f32).collect();
        (logits[5], logits[70], logits[7_000]) = (-10.0, 2.0, 3.0);
        let peaked: Vec<f32> = (0..size)
            .map(|i| ((i * 7919) % size) as f32 / 4e3)
            .collect();
        let changes: [fn(&mut SampleConfig); 5] = [
            |c| c.min_p = 0.01,
            |c| (c.min_p, c.top_p) = (0.001, 0.9),
            |c| c.top_p = 0.5,
            |c| (c.top_k, c.top_p) = (300, 0.7),
            |c| (c.temperature, c.top_p) = (0.3, 0.99),
        ];
        for (row, change) in [&logits, &peaked]
            .into_iter()
            .flat_map(|r| changes.map(|c| (r, c)))
        {
            let config = config(|c| {
                c.repetition_penalty = 1.5;
                change(c);
            });
            let seen = [5, 70, 9, 5, 50_303];
            let mut all: Vec<(u32, f64)> = (0..).zip(row.iter().map(|&z| f64::from(z))).collect();
            for id in [5, 70, 9, 50_303] {
                let x = &mut all[id].1;
                *x = if *x < 0.0 { *x * 1.5 } else { *x / 1.5 };
            }
            all.iter_mut().for_each(|(_, x)| *x /= config.temperature);
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            if config.top_k > 0 {
                let kth = all[config.top_k - 1].1;
                all.retain(|&(_, x)| x >= kth);
            }
            let top = all[0].1;
            let total: f64 = all.iter().map(|(_, x)| (x - top).exp()).sum();
            let mut mass = 0.0;
            all.retain(|(_, x)| {
                let before = mass;
                mass += (x - top).exp() / total;
                before < config.top_p
            });
            all.retain(|(_, x)| config.min_p == 0.0 || *x >= top + config.min_p.ln());
            all.sort_by_key(|&(id, _)| id);
            let kept = config.process(row, &seen);
            let off = kept.len().abs_diff(all.len());
            // A sum of f32 may be on the other side of top-p by a token.
            assert!(off <= 1, "{config:?}: {} and {}", kept.len(), all.len());
            assert!(off > 0 || kept == all, "{config:?}");
        }
    }

    #[test]
    fn the_penalty_counts_a_token_once_and_lowers_either_sign() {
        let config = config(|c| c.repetition_penalty = 2.0);
        let processed = config.process(&[4.0, -4.0, 4.0, 0.0], &[0, 1, 0, 3]);
        assert_eq!(processed, [(0, 2.0), (1, -8.0), (2, 4.0), (3, 0.0)]);
    }

    #[test]
    fn draws_have_the_frequencies_of_the_softmax() {
        let logits = [0.5f32, 0.3, 0.2].map(f32::ln);
        let config = SampleConfig::default();
        let (rounds, mut counts) = (20_000, [0u32; 3]);
        let mut draws = Draws::new(1, None, &[7], 0);
        for position in 0..rounds {
            counts[config.choose(&logits, &[], draws.uniform(position)) as usize] += 1;
        }
        for (count, p) in counts.iter().zip([0.5, 0.3, 0.2]) {
            let deviation = f64::from(*count) / rounds as f64 - p;
            assert!(
                deviation.abs() < 4.0 * (p * (1.0 - p) / rounds as f64).sqrt(),
                "{counts:?}"
            );
        }
        assert_eq!(config.choose(&logits, &[], 0.0), 0);
        assert_eq!(config.choose(&logits, &[], 1.0 - 1e-16), 2);
    }

    #[test]
    fn a_number_depends_on_its_place_alone() {
        let at = |seed, prompt: &[u32], index, position| {
            Draws::new(seed, None, prompt, index).uniform(position)
        };
        let in_round = |seed, round| Draws::new(seed, Some(round), &[2, 3], 4).uniform(0);
        let mut one = Draws::new(1, None, &[2, 3], 4);
        let (second, first) = (one.uniform(1), one.uniform(0));
        assert_eq!(
            (at(1, &[2, 3], 4, 0), at(1, &[2, 3], 4, 1)),
            (first, second)
        );
        let others = [
            at(2, &[2, 3], 4, 0),
            at(1, &[2], 4, 0),
            at(1, &[2, 3], 5, 0),
            second,
            in_round(1, 0),
            in_round(1, 4),
        ];
        assert!(others.iter().all(|&other| other != first));
        // Another seed in another round is another number, whatever the two have in common.
        assert_ne!(in_round(0, 3), in_round(1 << 32, 2));
    }

    #[test]
    fn log_probs_are_the_models_own() {
        let logits = [0.5f32, 0.3, 0.2].map(f32::ln);
        assert!((log_prob(&logits, 1) - 0.3f64.ln()).abs() < 1e-7);
        assert!(log_prob(&[1e4, 0.0], 1) == -1e4);
    }

    #[test]
    fn settings_that_say_nothing_are_refused() {
        type Change = fn(&mut SampleConfig);
        let wrong: [(&str, Change); 12] = [
            ("temperature", |c| c.temperature = 0.0),
            ("temperature", |c| c.temperature = f64::NAN),
            ("top_p", |c| c.top_p = 0.0),
            ("top_p", |c| c.top_p = 1.1),
            ("min_p", |c| c.min_p = 1.5),
            ("min_p", |c| (c.greedy, c.min_p) = (true, 0.1)),
            ("stop", |c| c.stop = vec![String::new()]),
            ("repetition_penalty", |c| c.repetition_penalty = -1.0),
            ("num_samples", |c| c.num_samples = 0),
            ("top_k", |c| (c.greedy, c.top_k) = (true, 5)),
            ("num_samples", |c| (c.greedy, c.num_samples) = (true, 5)),
            ("seed", |c| (c.greedy, c.seed) = (true, 5)),
        ];
        for (key, change) in wrong {
            let error = config(change).validate().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(config(|c| c.top_k = 5).is_biased() && !SampleConfig::default().is_biased());
    }
}
