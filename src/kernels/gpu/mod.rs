//! The operations on an NVIDIA GPU.
//!
//! Hides streams, launches and element types. An operation is a pair: a `.cu` file, whose text is
//! part of the program and compiled where it runs, and a file of the same name that launches it.
//! The operation's own file, one folder up, checks the operands and chooses.
//!
//! *Why*: text that is compiled at run time needs no compiler at build time, fits the card that is
//! there, and can be tested where none is: the same text, as C++, runs on the processor (`twin`),
//! launched by the same functions.
//!
//! Weights and activations are bf16 or f32. The residual stream, its gradient, statistics and weight
//! gradients are f32 in both. Sums over elements are f32 or wider, in an order that does not depend on
//! scheduling.

pub(super) mod activation;
pub(super) mod attention;
#[cfg(test)]
mod cards;
pub(super) mod columns;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
pub(super) mod elementwise;
pub(super) mod embedding;
pub(super) mod key_values;
mod launch;
pub(super) mod mix;
pub(super) mod norm;
pub(super) mod optimizer;
pub(super) mod product;
pub(super) mod rotary;
pub(super) mod sampling;
pub(super) mod token;
#[cfg(test)]
pub(crate) mod twin;

use candle_core::{Device, Tensor};

/// Whether operations on this tensor are ours. In tests also in host memory, inside [`twin::scope`].
pub(super) fn holds(tensor: &Tensor) -> bool {
    serves(tensor.device())
}

/// Whether operations on this device's tensors are ours.
pub(super) fn serves(device: &Device) -> bool {
    #[cfg(test)]
    if twin::is_on() {
        return true;
    }
    device.is_cuda()
}
