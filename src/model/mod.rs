//! Language models: where their files come from.

pub mod hub;
