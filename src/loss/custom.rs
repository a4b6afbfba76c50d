//! An objective from outside the table, under a name of its own.
//!
//! *Why*: a new loss can be trained through the library without a change to this crate.
//! Its name and knobs are what a run records and compares when it is resumed.

use std::sync::Arc;

use super::{Loss, Objective};
use crate::error::{Error, Result};

/// An objective that the table of losses does not have.
#[derive(Debug, Clone)]
pub struct Custom {
    pub(super) name: &'static str,
    pub(super) objective: Arc<dyn Objective>,
    pub(super) weight: f64,
}

/// Equal if name, knobs and weight are, like losses read from configs.
impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.weight == other.weight
            && self.objective.knobs() == other.objective.knobs()
            && self.objective.values() == other.objective.values()
    }
}

impl Custom {
    /// Refuses a name that the table has, under which the run would look like another one, and knobs
    /// without a value, which a run could neither record nor compare.
    pub(super) fn validate(&self) -> Result<()> {
        let (knobs, values) = (self.objective.knobs(), self.objective.values());
        if knobs.len() != values.len() {
            let (name, knobs, values) = (self.name, knobs.len(), values.len());
            return Err(Error::input(format!(
                "the loss {name} has {knobs} knobs and {values} values"
            ))
            .hint("values() gives one value per knob, in the order of knobs()"));
        }
        match Loss::default_of(self.name) {
            Err(_) => Ok(()),
            Ok(_) => Err(
                Error::input(format!("there is a loss `{}` already", self.name))
                    .hint("give a custom loss a name of its own"),
            ),
        }
    }
}

impl Loss {
    /// An objective of another crate. `name` must not be that of a loss of the table; a run directory
    /// records it with the knobs. The weight is 1.
    pub fn custom(name: &'static str, objective: Arc<dyn Objective>) -> Self {
        Self::Custom(Custom {
            name,
            objective,
            weight: 1.0,
        })
    }
}
