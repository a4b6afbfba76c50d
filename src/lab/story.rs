//! Short stories from a grammar: a task on which the true preference is known.
//!
//! Hides how a weighted grammar written by hand becomes exact numbers. A [`Grammar`] has finitely
//! many continuations of each prompt, each with a probability q and a score s. Preferences between
//! two of them are drawn by Bradley and Terry's rule, P(1 before 2) = sigma(s_1 - s_2), so the
//! policies that the objectives aim at are known: they are [tilts](Tilt) of q, and their expected
//! score, entropy and KL are sums over the grammar. A [`Report`] puts a model's samples beside them.
//!
//! *Why*: on real data nobody knows the policy that training should reach. Here it is a number, and
//! what a model has learned, or lost, can be read off a table.

mod check;
mod file;
mod grammar;
mod report;
mod template;
mod tilt;

pub use grammar::{Grammar, Prompt, Story};
pub use report::{Answers, Column, Estimate, Example, Report, Sample, Told};
pub use tilt::{Tilt, Tilted};

use std::path::PathBuf;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Changing how anything is drawn means changing this text, and with it every draw.
const VERSION: &[u8; 16] = b"expo story v1   ";

/// The random numbers of one `stream` of a seed; streams are independent.
pub fn rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&stream.to_le_bytes());
    key[16..].copy_from_slice(VERSION);
    ChaCha8Rng::from_seed(key)
}

/// Uniform in [0, 1).
pub fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// An index drawn with these probabilities, which sum to 1.
fn draw_index(probabilities: impl IntoIterator<Item = f64>, rng: &mut ChaCha8Rng) -> usize {
    let mut left = uniform(rng);
    // The answer where rounding leaves the sum a little below 1.
    let mut last = 0;
    for (index, probability) in probabilities.into_iter().enumerate() {
        last = if probability > 0.0 { index } else { last };
        left -= probability;
        if left < 0.0 {
            break;
        }
    }
    last
}

/// The most stories per prompt; all are kept in memory.
const MOST_SAMPLES: usize = 100_000;

/// The `[story]` section of a run: what its samples are held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoryConfig {
    /// The grammar's file.
    pub grammar: PathBuf,
    /// Rows with prompts of the grammar that training does not see.
    pub prompts: PathBuf,
    /// Stories drawn per prompt, before training and after.
    #[serde(default = "sixteen")]
    pub num_samples: usize,
    /// The beta of DPO's optimum.
    #[serde(default = "tenth")]
    pub beta: f64,
}

fn sixteen() -> usize {
    16
}

fn tenth() -> f64 {
    0.1
}

impl StoryConfig {
    /// Checks the ranges of the keys.
    pub fn validate(&self) -> Result<()> {
        if !(2..=MOST_SAMPLES).contains(&self.num_samples) {
            let valid = format!("in [2, {MOST_SAMPLES}]");
            return Err(Error::must_be("num_samples", valid, self.num_samples)
                .hint("diversity is that of several samples"));
        }
        Tilt::dpo(self.beta).map(|_| ())
    }
}
