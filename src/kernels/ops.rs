//! The operations: one file each, with its contract, the checks of its operands, one `match` over the
//! back ends, and a test against a plain formula in differentiable candle operations.

pub mod activation;
pub mod attention;
pub mod dora;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod exchange;
pub mod kv_cache;
pub mod linear;
pub mod mix;
pub mod norm;
pub mod optimizer;
pub mod packed;
pub mod quantized;
pub mod rotary;
pub mod sampling;
pub mod token;
pub mod weighted;
