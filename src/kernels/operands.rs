//! Types that an operation shares with the back ends that compute it.

pub(super) mod activation;
pub(super) mod attention;
pub(super) mod blockwise;
pub(super) mod dropout;
pub(super) mod kv_cache;
pub(super) mod norm;
pub(super) mod optimizer;
pub(super) mod packed;
pub(super) mod quantized;
pub(super) mod sampling;
pub(super) mod token;
