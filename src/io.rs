//! Files on disk, below everything that gives them a meaning.
//!
//! - [`untrusted`]: bounded reads of files that come from elsewhere.

pub mod untrusted;
