//! The guide: what the README leaves out, one page per subject.

#[doc = include_str!("guide/data.md")]
pub mod data {}
