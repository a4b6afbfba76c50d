//! Preference objectives as arithmetic on a few numbers.
//!
//! Hides every formula behind [`Objective::evaluate`]: summed log-probs of one example's responses
//! in, the example's loss and its gradient with respect to each policy log-prob out, in f64.
//!
//! *Why*: no objective in scope sees more of a model than summed log-probs and lengths. On the
//! host the formulas read like the papers, are the same for every device, exact under any
//! micro-batching, and are tested in microseconds. The gradient seeds the model's backward pass.
//!
//! A loss of this crate is a file of [`objectives`] and its row there. Most are formulas of one
//! pair ([`PairLoss`]) or of its margin ([`MarginLoss`]). A loss of another crate implements
//! [`Objective`] and is trained as [`Loss::custom`].

#[cfg(test)]
mod contract_tests;
mod custom;
mod divergence;
mod dual;
mod example;
mod knobs;
mod list;
pub mod math;
mod needs;
pub mod objectives;
mod pair;
mod prepared;
mod weighted;

pub use custom::Custom;
pub use divergence::{Divergence, DivergenceScore};
pub use dual::Dual;
pub use example::{Response, Role, Scored, Shared};
pub use knobs::{End, Knob, KnobValue, Knobs, Range};
pub use needs::Needs;
pub use objectives::Loss;
pub use pair::{MarginLoss, PairLoss};
pub use prepared::Prepared;
pub use weighted::WeightedLoss;

use crate::error::Result;

/// The page of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// What is minimised, of one example.
    pub formula: &'static str,
    /// Who published it, with the equation where it has a number.
    pub paper: &'static str,
    /// A config that uses it.
    pub config: &'static str,
}

/// A preference objective with its knobs.
///
/// An optimizer step calls [`prepare`](Self::prepare) once with the whole batch, then
/// [`evaluate`](Self::evaluate) for each example with its statistics.
pub trait Objective: Knobs {
    /// Its page.
    fn about(&self) -> About;

    /// What it asks of the data and of the training step.
    fn needs(&self) -> Needs;

    /// Checks what the knobs' ranges alone do not say.
    ///
    /// # Errors
    /// If knobs contradict each other; the error names the knob and its value.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// What the loss reads of the whole optimizer-step batch: by default nothing. The examples have
    /// roles, lengths and the log-probs of the responses named in [`Needs::batch`]; the log-probs of
    /// other responses are NaN.
    fn prepare(&self, _batch: &[Scored]) -> Prepared {
        Prepared::none()
    }

    /// The loss of one example, with its gradient with respect to each response's log pi, 0 for
    /// the responses that it does not read. `statistics` are the example's, from
    /// [`prepare`](Self::prepare).
    ///
    /// # Panics
    /// If the example does not pass [`Needs::check`], or the statistics are not those of this loss.
    fn evaluate(&self, example: &Scored, statistics: &[f64]) -> Dual;

    /// As [`evaluate`](Self::evaluate), of an example that is its whole batch.
    fn evaluate_alone(&self, example: &Scored) -> Dual {
        let prepared = self.prepare(std::slice::from_ref(example));
        self.evaluate(example, prepared.of(0))
    }

    /// The implicit reward of a response, as reported in `rewards/*`; `None` for a loss that
    /// defines none.
    fn reward(&self, response: &Response) -> Option<f64>;

    /// Figures of one example that the metrics average over the examples that report them, e.g.
    /// `("saturated", 1.0)`.
    fn diagnostics(&self, _example: &Scored, _statistics: &[f64]) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}
