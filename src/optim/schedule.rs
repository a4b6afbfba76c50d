//! The learning rate over the steps of a run, as transformers has it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// `[schedule]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// The shape after warm-up.
    pub lr_scheduler_type: Decay,
    /// Steps of linear warm-up; `constant` reads neither this nor `warmup_ratio`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Warm-up as a share of all steps, rounded up; not together with `warmup_steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
    /// Whether the first step's rate is 0, as in transformers, or one part of `warmup_steps` + 1,
    /// as in the official DPO repository.
    pub warmup_from_zero: bool,
}

/// Schedules by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Down to 0 in a straight line.
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
    /// No warm-up, no decay.
    Constant,
    /// Warm-up, then no decay.
    ConstantWithWarmup,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            lr_scheduler_type: Decay::Linear,
            warmup_steps: None,
            warmup_ratio: None,
            warmup_from_zero: true,
        }
    }
}

impl ScheduleConfig {
    /// Checks ranges and that no key goes unread.
    pub fn validate(&self) -> Result<()> {
        if let Some(ratio) = self.warmup_ratio {
            if !(0.0..=1.0).contains(&ratio) {
                return Err(Error::must_be("warmup_ratio", "in [0, 1]", ratio));
            }
            if self.warmup_steps.is_some() {
                return Err(Error::input("both warmup_steps and warmup_ratio")
                    .hint("give one")
                    .at_keys(&["warmup_steps", "warmup_ratio"]));
            }
        }
        let warmup = self.warmup_steps.is_some() || self.warmup_ratio.is_some();
        if self.lr_scheduler_type == Decay::Constant && warmup {
            return Err(
                Error::input("lr_scheduler_type \"constant\" has no warm-up")
                    .hint("use \"constant_with_warmup\"")
                    .at_keys(&["lr_scheduler_type", "warmup_steps", "warmup_ratio"]),
            );
        }
        Ok(())
    }

    /// The steps of warm-up in a run of `total`.
    pub fn warmup(&self, total: u64) -> u64 {
        match (self.warmup_steps, self.warmup_ratio) {
            (Some(steps), _) => steps,
            (None, Some(ratio)) => (ratio * total as f64).ceil() as u64,
            (None, None) => 0,
        }
    }

    /// The learning rate's factor at `step`, from 0, of `total`.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let warmup = self.warmup(total);
        if step < warmup {
            return if self.warmup_from_zero {
                step as f64 / warmup as f64
            } else {
                (step + 1) as f64 / (warmup + 1) as f64
            };
        }
        let progress = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
        match self.lr_scheduler_type {
            Decay::Linear => (1.0 - progress).max(0.0),
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()),
            Decay::Constant | Decay::ConstantWithWarmup => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_follow_transformers_and_the_official_repository() {
        let schedule = |lr_scheduler_type, warmup_steps, warmup_from_zero| ScheduleConfig {
            lr_scheduler_type,
            warmup_steps,
            warmup_ratio: None,
            warmup_from_zero,
        };
        let linear = schedule(Decay::Linear, None, true);
        assert_eq!((linear.factor(0, 8), linear.factor(1, 8)), (1.0, 0.875));
        let cosine = schedule(Decay::Cosine, Some(2), true);
        assert_eq!(
            (
                cosine.factor(0, 6),
                cosine.factor(1, 6),
                cosine.factor(2, 6)
            ),
            (0.0, 0.5, 1.0)
        );
        assert!((cosine.factor(3, 6) - 0.8535533905932737).abs() < 1e-15);
        let official = schedule(Decay::ConstantWithWarmup, Some(150), false);
        assert_eq!(official.factor(0, 1000), 1.0 / 151.0);
        assert_eq!(official.factor(150, 1000), 1.0);
    }

    #[test]
    fn constant_refuses_a_warm_up_it_would_not_read() {
        let schedule = ScheduleConfig {
            lr_scheduler_type: Decay::Constant,
            warmup_steps: Some(3),
            ..ScheduleConfig::default()
        };
        assert!(schedule.validate().is_err());
    }
}
