//! Tasks on which the best policy is known, to hold theory and training against.
//!
//! - [`story`]: a grammar of little stories on which the true preference is known.
//! - [`bandit`]: the papers' synthetic experiments on a softmax over a few responses.

pub mod bandit;
pub mod story;
