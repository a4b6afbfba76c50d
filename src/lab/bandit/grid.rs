//! A range of lambda or alpha.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::report::Axis;

/// More points than a figure can show.
const MOST_POINTS: usize = 100_000;

/// Evenly spaced numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Of what they are evenly spaced.
    pub scale: Scale,
    /// The first: the number, or its logarithm.
    pub from: f64,
    /// The last, likewise.
    pub to: f64,
    /// How many.
    pub points: usize,
}

/// Of what numbers are evenly spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// The number.
    Linear,
    /// Its natural logarithm.
    Ln,
    /// Its decimal logarithm.
    Log10,
}

impl Grid {
    /// The numbers, in order.
    pub fn values(&self) -> Vec<f64> {
        let value = |at: f64| match self.scale {
            Scale::Linear => at,
            Scale::Ln => at.exp(),
            // The decimal is read as it would be written: 10^-5 is 1e-5 to the last digit.
            Scale::Log10 if at.fract() == 0.0 => {
                format!("1e{at}").parse().unwrap_or_else(|_| 10f64.powf(at))
            }
            Scale::Log10 => 10f64.powf(at),
        };
        self.places().into_iter().map(value).collect()
    }

    /// The numbers or their logarithms, whichever are evenly spaced.
    pub fn places(&self) -> Vec<f64> {
        let share = |i: usize| i as f64 / (self.points.max(2) - 1) as f64;
        let place = |i: usize| self.from + (self.to - self.from) * share(i);
        (0..self.points).map(place).collect()
    }

    /// The same range with `factor` steps in place of each.
    #[must_use]
    pub fn finer(&self, factor: usize) -> Self {
        Self {
            points: (self.points - 1) * factor + 1,
            ..self.clone()
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        if !(2..=MOST_POINTS).contains(&self.points) {
            let valid = format!("in [2, {MOST_POINTS}]");
            return Err(Error::must_be("points", valid, self.points));
        }
        let ends = self.values();
        let (first, last) = (ends[0], ends[ends.len() - 1]);
        if !(first < last && last.is_finite() && first.is_finite()) {
            return Err(Error::input(format!("from {first} to {last}"))
                .hint("from must be below to, and both finite")
                .at_keys(&["from", "to"]));
        }
        Ok(())
    }

    /// Its numbers on an axis of a figure.
    pub(super) fn axis(&self, label: &str) -> Axis {
        let values = self.values();
        let (from, to) = (values[0], values[values.len() - 1]);
        match self.scale {
            Scale::Linear => Axis::linear(label, from, to),
            Scale::Ln | Scale::Log10 => Axis::log(label, from, to),
        }
    }
}
