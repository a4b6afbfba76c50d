//! Files on disk, below everything that gives them a meaning.
//!
//! - [`untrusted`]: bounded reads of files that come from elsewhere.
//! - [`durable`]: atomic, synced writes of files and directories, with a manifest of hashes.
//! - [`lock`]: one owner per run directory.

pub mod durable;
pub mod lock;
pub mod untrusted;
