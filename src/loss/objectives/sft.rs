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

#[cfg(test)]
use crate::loss::contract_tests::{Contract, LENGTH, REFERENCE, Settings, Step0};
use crate::loss::knobs::knobs;
use crate::loss::{About, Dual, Needs, Objective, Prepared, Response, Role, Scored};

knobs! {
    /// The knobs of SFT.
    Sft {
        /// Whether the loss is a mean over the tokens of the optimizer-step batch (TRL) instead of a
        /// mean over sequences of summed log-probs (the papers, the official DPO repository).
        per_token: bool = false;
    }
}

impl Objective for Sft {
    fn about(&self) -> About {
        About {
            formula: "L = -log pi(y_w|x)",
            paper: "EXPO app. C.2",
            config: "configs/hh_sft.toml",
        }
    }

    fn needs(&self) -> Needs {
        Needs {
            all: &[Role::Chosen],
            soft_labels: false,
            ..Needs::pair()
        }
    }

    /// With `per_token` the mean length of a chosen response.
    fn prepare(&self, batch: &[Scored]) -> Prepared {
        if !self.per_token {
            return Prepared::none();
        }
        let lengths = || {
            batch
                .iter()
                .flat_map(|e| e.of(Role::Chosen))
                .map(|y| y.tokens)
        };
        Prepared::of_batch([lengths().sum::<f64>() / lengths().count().max(1) as f64])
    }

    fn evaluate(&self, example: &Scored, statistics: &[f64]) -> Dual {
        let target = example.of(Role::Chosen).next();
        let target = target.expect("an example that passed Needs::check has a chosen response");
        let surprise = -target.policy.clone();
        match self.per_token {
            // The batch mean of sums over the batch mean of lengths is the mean over tokens.
            true => surprise / statistics[0],
            false => surprise,
        }
    }

    fn reward(&self, _response: &Response) -> Option<f64> {
        None
    }
}

#[cfg(test)]
impl Contract for Sft {
    fn step_0(&self) -> Step0 {
        let length = if self.per_token { LENGTH } else { 1.0 };
        Step0 {
            value: -REFERENCE[0] / length,
            chosen: -1.0 / length,
            rejected: 0.0,
        }
    }

    fn variants(&self) -> &'static [Settings] {
        &[&[("per_token", "true")]]
    }
}
