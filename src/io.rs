//! Files on disk, below everything that gives them a meaning.
//!
//! - [`cache`]: the root of every cache.
//! - [`untrusted`]: bounded reads of files that come from elsewhere.
//! - [`durable`]: atomic, synced writes of files and directories, with a manifest of hashes.
//! - [`lock`]: one owner per run directory.

pub mod cache;
pub mod durable;
pub mod lock;
pub mod untrusted;
