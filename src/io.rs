//! Files on disk, below everything that gives them a meaning.
//!
//! - [`cache`]: the root of every cache.
//! - [`untrusted`]: bounded reads of files that come from elsewhere.
//! - [`durable`]: atomic, synced writes of files and directories, with a manifest of hashes.
//! - [`lock`]: one owner per run directory.
//! - [`model_dir`]: the files of a model directory.
//! - [`hub`]: models by name, downloaded into the cache that Python shares.
//! - [`output`]: where a result goes that a user names a place for.
//! - [`http`]: what the clients of the hub and of a judge share.
//! - [`number`]: numbers in JSON that may not be finite.

pub mod cache;
pub mod durable;
pub mod http;
pub mod hub;
pub mod lock;
pub mod model_dir;
pub mod number;
pub mod output;
pub mod untrusted;
