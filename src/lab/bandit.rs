//! The papers' synthetic experiments: losses on a softmax over a few responses.
//!
//! Hides protocols behind [`Experiment::run`]: a config in, tables and figures out.
//!
//! *Why*: where the best policy is known, theory can be looked at. The losses are those of training,
//! asked for value and gradient as training asks them, so what holds here holds of the code that
//! trains models, and a new loss gets its curves and its verdict without a line here. Training is
//! one protocol; the other is the optimum with exact preferences, solved to convergence, because
//! "converged" is what the theorems speak of and a number of Adam steps is not.

mod closed_form;
mod config;
mod constraint;
mod contest;
mod experiment;
mod grid;
mod interpolation;
mod policy;
mod preservation;
mod problem;
mod report;
mod runs;
mod solve;
mod theory;
mod train;

pub use closed_form::{ipo, rlhf};
pub use config::{
    Comparisons, Constraint, Data, Distance, Interpolation, Penalty, Placement, Preservation,
    Theory,
};
pub use contest::{Contender, Losses, SampleTerm, Settings};
pub use experiment::Experiment;
pub use grid::{Grid, Scale};
pub use problem::{Draws, Example, Prompt, Slope, Task};
pub use report::Report;
pub use runs::{solve, solve_pairs};
pub use solve::{Solved, minimize};
pub use train::{Order, TrainConfig};
