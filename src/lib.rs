//! Preference fine-tuning of causal language models.
//!
//! Layers, lowest first; a module imports only from the layers before its own:
//! [`error`] - [`loss`] - [`data`] - [`model`].

#![deny(missing_docs)]

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod error;
pub mod kernels;
pub mod loss;
pub mod model;
pub mod optim;
