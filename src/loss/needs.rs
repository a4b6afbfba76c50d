//! What a loss asks of the data and of the training step.

use super::Role;
use super::knobs::{Knob, Range};
use crate::error::{Error, Result};

/// What an objective asks of the data and of the training step. Start from [`Needs::pair`] or
/// [`Needs::referenced_pair`] and change what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Roles that every labelled example must have, and that are trained on.
    pub all: &'static [Role],
    /// Roles of which every example must have at least one, and that are trained on.
    pub any: &'static [Role],
    /// Roles that also make an example on their own, without any preference: prompts of a second
    /// dataset that has only samples.
    pub unlabelled: &'static [Role],
    /// Roles that only the reported figures read, where the data has them.
    pub optional: &'static [Role],
    /// Roles that are scored, without gradient, over the whole optimizer-step batch before the
    /// backward passes, for [`Objective::prepare`](super::Objective::prepare).
    pub batch: &'static [Role],
    /// Rows per group in which answers rotate to become [`Role::Mismatched`]; `None`: the dataset.
    pub mismatch_group: Option<usize>,
    /// Whether the formula or its reported metrics read log r.
    pub reference: bool,
    /// Whether a soft label p(y_1 > y_2) has a meaning for it.
    pub soft_labels: bool,
    /// Whether it reads sums over the tokens that both responses of a pair have.
    pub shared: bool,
    /// Whether it reads [`Response::confidence`](super::Response::confidence).
    pub confidence: bool,
    /// Whether [`Role::Sampled`] are samples of the policy itself, drawn anew for every step.
    pub on_policy: bool,
    /// Whether it reads by how much the score of a row's chosen response is the higher one.
    pub scores: bool,
}

impl Needs {
    /// A chosen and a rejected response, their label hard or soft, and nothing else.
    pub const fn pair() -> Self {
        Self {
            all: &[Role::Chosen, Role::Rejected],
            any: &[],
            unlabelled: &[],
            optional: &[],
            batch: &[],
            mismatch_group: None,
            reference: false,
            soft_labels: true,
            shared: false,
            confidence: false,
            scores: false,
            on_policy: false,
        }
    }

    /// As [`pair`](Self::pair), under the policy and the reference.
    pub const fn referenced_pair() -> Self {
        Self {
            reference: true,
            ..Self::pair()
        }
    }

    /// The roles that are computed with gradient; that of an optional one is 0.
    pub fn trained(&self) -> Vec<Role> {
        let read = self.all.iter().chain(self.any).chain(self.optional);
        read.copied().collect()
    }

    /// Checks the roles and the soft label of one example.
    ///
    /// # Errors
    /// If a response is missing, the label lies outside [0, 1], or it is soft and the loss gives
    /// soft labels no meaning.
    pub fn check(&self, roles: &[Role], preference: Option<f64>) -> Result<()> {
        if let Some(p) = preference {
            PREFERENCE.check(p.into())?;
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

const PREFERENCE: Knob = Knob {
    name: "preference",
    range: Range::closed(0.0, 1.0),
    meaning: "p(chosen > rejected).",
};
