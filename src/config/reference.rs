//! How a reference moves.

use serde::{Deserialize, Serialize};

use super::at_least_one;
use crate::error::{Error, Result};

/// `[reference]`: TR-DPO's moving reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferenceConfig {
    /// Towards the policy, or onto it.
    pub update: Update,
    /// The policy's share in a soft update; 0.6 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Optimizer steps between updates.
    pub steps: u64,
}

/// How the reference moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Update {
    /// reference = alpha * policy + (1 - alpha) * reference.
    #[default]
    Soft,
    /// reference = policy.
    Hard,
}

impl Default for ReferenceConfig {
    fn default() -> Self {
        Self {
            update: Update::Soft,
            alpha: None,
            steps: 512,
        }
    }
}

impl ReferenceConfig {
    /// The policy's share in an update.
    pub fn alpha(&self) -> f64 {
        match self.update {
            Update::Soft => self.alpha.unwrap_or(0.6),
            Update::Hard => 1.0,
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        at_least_one("steps", self.steps)?;
        match (self.update, self.alpha) {
            (Update::Hard, Some(alpha)) => {
                Err(Error::input(format!("alpha = {alpha}, update = \"hard\""))
                    .hint("only update = \"soft\" reads alpha")
                    .at_keys(&["alpha", "update"]))
            }
            (Update::Soft, Some(alpha)) if !(alpha > 0.0 && alpha <= 1.0) => {
                Err(Error::must_be("alpha", "in (0, 1]", alpha))
            }
            _ => Ok(()),
        }
    }
}
