//! Preference fine-tuning of causal language models: EXPO, DPO and their relatives.
//!
//! The map of the crate, lowest layer first; a module imports only from layers before its own, and
//! `tests/layers.rs` checks that it does:
//!
//! - [`error`]: what went wrong, where, and what would be valid.
//! - [`io`]: bounded reads of untrusted files, durable writes, the files of a model directory, the hub.
//!   [`segment`]: what attends to what in a packed batch.
//! - [`loss`]: the objectives, as arithmetic on a few `f64`s. [`kernels`]: operations on tensors,
//!   each with its backward pass. [`lab::story`]: a grammar of little stories on which the true
//!   preference is known. None knows of the others.
//! - [`data`]: from files of rows to packed batches of tokens.
//! - [`ranks`]: how several processes find each other and agree.
//! - [`run_dir`]: the files of a run directory, their names and records.
//! - [`report`]: results as tables, figures and pages. [`model`]: one decoder for all families, with a
//!   backward pass of its own, and decoding token by token.
//! - [`optim`]: AdamW, Adam, RMSprop, schedules, clipping.
//! - [`checkpoint`]: models saved in Hugging Face form, and the checkpoints of a run.
//! - [`config`]: a run as one TOML file, assembled from the sections of the modules above.
//! - [`session`]: what a command works with, opened once: device and numerics, model directory,
//!   tokenizer, rows.
//! - [`score`]: log-probs as a column, which is all that training needs of the reference.
//! - [`sample`]: responses drawn from a model, and the file they go to.
//! - [`merge`]: adapters merged into their base.
//! - [`train`]: the run: open, score the reference, step, evaluate, record, save. [`plan`]: what a run
//!   will take, before it is made. [`eval`]: evaluation of a model. [`lab::bandit`]: the papers'
//!   synthetic experiments, where the best policy is known. [`inspect`]: the rows of a run as it would
//!   see them.
//! - [`guide`]: what the README leaves out, one page per subject.
//!
//! The program (`main`, `cli`) stands on top of these and is the only part that prints or exits.
//!
//! A loss can be asked for its value and gradient without a model. DPO where the policy is still
//! its reference:
//!
//! ```
//! use expo::loss::{Loss, Objective, Role, Scored};
//!
//! let dpo = Loss::default_of("dpo")?.with("beta", "0.5")?;
//! // (role, log pi, log r, tokens) of each response
//! let pair = [
//!     (Role::Chosen, -45.0, -45.0, 17.0),
//!     (Role::Rejected, -60.0, -60.0, 21.0),
//! ];
//! let loss = dpo.evaluate_alone(&Scored::new(&pair, None));
//! assert!((loss.value - 2f64.ln()).abs() < 1e-12);
//! assert_eq!(loss.grad, [-0.25, 0.25]);
//! # Ok::<(), expo::error::Error>(())
//! ```

#![deny(missing_docs)]

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod error;
pub mod eval;
pub mod guide;
pub mod inspect;
pub mod io;
pub mod kernels;
pub mod lab;
pub mod loss;
pub mod merge;
pub mod model;
pub mod optim;
pub mod plan;
pub mod ranks;
pub mod report;
pub mod run_dir;
pub mod sample;
pub mod score;
pub mod segment;
pub mod session;
pub mod train;
