//! SFT: supervised fine-tuning, the stage before preferences.
//!
//! The chosen response is the target; the model that comes out is then both the reference and the
//! policy's start (EXPO appendix C.2):
//!
//! ```text
//! L = -log pi(y_w|x)                                  summed per sequence: the papers
//! L = -(sum over the batch of log pi(y_w|x)) / (sum over the batch of |y_w|)      per_token: TRL
//! ```
//!
//! The second is a mean over the tokens of the whole optimizer-step batch, whatever its
//! micro-batches, in which a long response weighs more than a short one.
//!
//! Config: `configs/hh_sft.toml`. Oracle: `tests/train.rs`, `trajectory_of_sft_on_real_rows`.

use super::{Context, Dual, Needs, Objective, Response, Role, Scored};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// The knobs of SFT.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sft {
    /// Whether the loss is a mean over the tokens of the optimizer-step batch (TRL) instead of a
    /// mean over sequences of summed log-probs (the papers, the official DPO repository).
    pub per_token: bool,
}

impl Objective for Sft {
    fn needs(&self) -> Needs {
        Needs {
            all: &[Role::Chosen],
            soft_labels: false,
            ..Needs::pair()
        }
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn evaluate(&self, example: &Scored, batch: &Context) -> Dual {
        let target = example.of(Role::Chosen).next();
        let target = target.expect("an example that passed Needs::check has a chosen response");
        // The batch mean of sums over the batch mean of lengths is the mean over tokens.
        let surprise = -target.policy.clone();
        match self.per_token {
            true => surprise / batch.mean_tokens,
            false => surprise,
        }
    }

    fn reward(&self, _response: &Response) -> Option<f64> {
        None
    }

    fn context(&self, batch: &[Scored]) -> Context {
        let lengths = || {
            batch
                .iter()
                .flat_map(|e| e.of(Role::Chosen))
                .map(|y| y.tokens)
        };
        Context {
            mean_tokens: lengths().sum::<f64>() / lengths().count().max(1) as f64,
            ..Context::default()
        }
    }
}
