//! A reference that follows the policy, as in TR-DPO.
//!
//! Gorbatovski et al. 2024 (arXiv 2404.09656): every so many steps the reference becomes
//! alpha * policy + (1 - alpha) * reference, or the policy itself.
//!
//! *Why*: until it first moves the reference is a column like any other. Then it is a second model in
//! memory, and only the rows of a batch are scored again, just before they are needed.

use super::Split;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::mix;
use crate::model::Decoder;
use crate::model::parameters::Params;
use crate::ranks::Ranks;
use crate::score::{micro_batch_tokens, score_rows};
use crate::session::{Observer, Session};

/// The reference's weights and how they move.
pub(super) struct MovingReference {
    model: Decoder,
    alpha: f64,
    every: u64,
    micro_batch_tokens: usize,
    /// Whether columns that were scored before are still right.
    moved: bool,
    eval_is_old: bool,
    ranks: Ranks,
}

impl MovingReference {
    /// Loads the reference, whose content hash is `hash`, where the config lets it move. Of one that has
    /// `moved` a checkpoint has the weights.
    pub fn open(
        config: &Config,
        session: &Session,
        policy: &Decoder,
        hash: Option<&str>,
        moved: bool,
        observe: Observer,
    ) -> Result<Option<Self>> {
        let Some(moving) = &config.reference else {
            return Ok(None);
        };
        // Both buffers are mixed element by element.
        let layout = policy.weights().layout();
        let model = match moved && session.is_stand_in() {
            true => {
                let folder = session.folder.clone().with_layout(layout);
                session.compute.load(&folder)?.0
            }
            false if layout.adapter.is_some() && config.model.reference.is_none() => {
                if session.folder.peft().is_some() && !session.starts_at_adapter() {
                    return Err(
                        Error::input("a reference that moves begins as the policy does")
                            .at_key("adapter.reference")
                            .hint("reference = \"start\", or leave [reference] out"),
                    );
                }
                let mut start = session.start_beside(policy)?;
                start.adapter = true;
                start
            }
            false => session.load_reference_as(layout, hash, observe)?,
        };
        if model.weights().layout() != layout {
            return Err(
                Error::input("the reference has other parameters than the policy")
                    .at_key("reference")
                    .hint("it can follow only a model of its own architecture"),
            );
        }
        Ok(Some(Self {
            model,
            alpha: moving.alpha(),
            every: moving.steps,
            micro_batch_tokens: micro_batch_tokens(config),
            ranks: session.ranks.clone(),
            moved: false,
            eval_is_old: false,
        }))
    }

    /// Its weights.
    pub fn weights(&self) -> &Params {
        self.model.weights()
    }

    /// The reference as it is now.
    pub fn model(&self) -> &Decoder {
        &self.model
    }

    /// Its weights, to be set from a checkpoint.
    pub fn weights_mut(&mut self) -> &mut Params {
        self.model.weights_mut()
    }

    /// Goes on with weights that were set, which had `moved` already or not.
    pub fn resume(&mut self, moved: bool) {
        (self.moved, self.eval_is_old) = (moved, moved);
    }

    /// Moves towards the policy where `done` steps are a multiple of the period. Returns whether it
    /// did.
    pub fn follow(&mut self, policy: &Decoder, done: u64) -> Result<bool> {
        if !done.is_multiple_of(self.every) {
            return Ok(false);
        }
        let (own, policy) = (self.model.weights_mut(), policy.weights());
        mix::mix(own.flat_mut(), policy.flat(), self.alpha)?;
        // Beside an adapter both have one.
        if policy.layout().adapter.is_none() {
            mix::mix(own.frozen_mut(), policy.frozen(), self.alpha)?;
        }
        (self.moved, self.eval_is_old) = (true, true);
        Ok(true)
    }

    /// Brings the column of the rows of a batch up to date.
    pub fn score_batch(&self, split: &mut Split, rows: &[usize]) -> Result<()> {
        if self.moved {
            self.score(split, rows)?;
        }
        Ok(())
    }

    /// Brings the column of the evaluation rows up to date.
    pub fn score_eval(&mut self, split: &mut Split) -> Result<()> {
        if self.eval_is_old {
            let rows: Vec<usize> = (0..split.len()).collect();
            self.score(split, &rows)?;
            self.eval_is_old = false;
        }
        Ok(())
    }

    fn score(&self, split: &mut Split, rows: &[usize]) -> Result<()> {
        let Some(reference) = &mut split.reference else {
            return Ok(());
        };
        let budget = self.micro_batch_tokens;
        let column = score_rows(
            &self.model,
            &split.dataset,
            rows,
            budget,
            &self.ranks,
            |_| {},
        )?;
        for (at, &row) in rows.iter().enumerate() {
            reference.set(row, column.of(at));
        }
        Ok(())
    }
}
