//! Where the time of a run's steps went, as a table.

use std::fmt::{self, Display};

use crate::error::Result;
use crate::kernels::profile::{self, Part, Report};
use crate::kernels::rates;
use crate::model::Decoder;

/// Where the time of a run's steps went; evaluating and saving are not counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens computed with gradient.
    pub tokens: usize,
    /// Seconds by part, and operations.
    pub report: Report,
    /// Threads that kernels may use.
    pub threads: usize,
    /// Floating-point operations per second that products of square matrices reach on this device, and
    /// their side.
    pub peak: (f64, usize),
}

impl Profile {
    pub(super) fn new() -> Self {
        Self {
            steps: 0,
            tokens: 0,
            report: Report::default(),
            threads: profile::threads(),
            peak: (f64::NAN, 0),
        }
    }

    /// Begins a step.
    pub(super) fn begin(&self) {
        profile::start();
    }

    /// Ends a step of so many tokens.
    pub(super) fn end(&mut self, tokens: usize) {
        self.report += profile::take();
        self.steps += 1;
        self.tokens += tokens;
    }

    /// Measures what the machine can do in the dtype and precision of the run's products.
    pub(super) fn finish(&mut self, model: &Decoder) -> Result<()> {
        let precision = model.numerics().compute;
        self.peak = rates::product_rate(model.weights().flat(), precision)?;
        Ok(())
    }
}

impl Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (report, wall) = (&self.report, self.report.wall());
        let row = |f: &mut fmt::Formatter, name: &str, seconds: f64, whole: f64| {
            let share = 100.0 * seconds / whole;
            writeln!(f, "{name:<28}{seconds:>14.3}{share:>13.1}%")
        };
        writeln!(f, "{:<28}{:>14}{:>14}", "part", "seconds", "share")?;
        for part in Part::ALL {
            row(f, part.name(), report.seconds(part), wall)?;
        }
        row(f, "all steps", wall, wall)?;
        if let Some(cpu) = report.cpu {
            let all = self.threads as f64 * wall;
            row(f, "idle, of all threads", (all - cpu).max(0.0), all)?;
        }
        let rate = report.flops as f64 / wall;
        for (name, value) in [
            ("steps", self.steps.to_string()),
            ("threads", self.threads.to_string()),
            ("tokens/s", format!("{:.0}", self.tokens as f64 / wall)),
            ("GFLOP/s in matmuls", format!("{:.1}", 1e-9 * rate)),
        ] {
            writeln!(f, "{name:<28}{value:>14}")?;
        }
        let (peak, side) = self.peak;
        let name = format!("GFLOP/s, {side}^3 product");
        writeln!(f, "{name:<28}{:>14.1}", 1e-9 * peak)?;
        let share = format!("{:.1}%", 100.0 * rate / peak);
        writeln!(f, "{:<28}{share:>14}", "share")
    }
}
