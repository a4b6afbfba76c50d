//! Files on disk, below everything that gives them a meaning.
//!
//! - [`untrusted`]: bounded reads of files that come from elsewhere.
//! - [`durable`]: atomic, synced writes of files and directories, with a manifest of hashes.
//! - [`lock`]: one owner per run directory.
//! - [`number`]: numbers in JSON that may not be finite.

pub mod durable;
pub mod lock;
pub mod number;
pub mod untrusted;
