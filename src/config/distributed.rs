//! `[distributed]`: several processes that compute one run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::at_least_one;
use crate::error::Result;

/// `[distributed]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistributedConfig {
    /// Seconds that a rank waits for the others in a step before the run ends with exit code 75. What
    /// takes long, such as scoring, drawing and saving, is waited for as long as it takes.
    pub timeout: u64,
}

impl Default for DistributedConfig {
    fn default() -> Self {
        Self { timeout: 600 }
    }
}

impl DistributedConfig {
    /// The keys that may change when a run resumes.
    pub const FREE: &[&str] = &["timeout"];

    /// How long a rank waits for the others.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Whether nothing is set, and nothing has to be written.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn validate(&self) -> Result<()> {
        at_least_one("timeout", self.timeout).map_err(|error| error.at_key("distributed"))
    }
}
