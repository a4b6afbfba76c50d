//! The integration tests: one binary, a module per subject.
//!
//! Where `EXPO_FIXTURES` names a folder of real data, models and oracle values, the tests that can
//! use it run on it too; without it they say that they were skipped.

mod configs;
mod hub;
mod layers;
mod models;
mod oracle;
mod readme;
mod support;

// Rows, tokens, lengths, samples, the order of an epoch.
mod data;
