//! A norm by its places in the flat buffers.

use candle_core::Tensor;

use super::arch::Norm;
use super::parameters::{Layout, Parameter, Params, Weights};
use crate::error::Result;
use crate::kernels::norm::{self, Saved};

/// A norm over the last dimension with its weight and, where it has one, its bias. Gradients of frozen
/// parameters are not computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormLayer {
    kind: Norm,
    weight: Parameter,
    bias: Option<Parameter>,
}

impl NormLayer {
    /// The norm of that name.
    ///
    /// # Panics
    /// If the layout has no such norm.
    pub(super) fn new(layout: &Layout, kind: Norm, name: &str) -> Self {
        Self {
            kind,
            weight: layout.parameter(&format!("{name}.weight")),
            bias: layout.find_parameter(&format!("{name}.bias")),
        }
    }

    /// Whether any of it is trained.
    pub(super) fn trainable(&self) -> bool {
        self.weight.trainable() || self.bias.is_some_and(|bias| bias.trainable())
    }

    pub(super) fn forward(&self, weights: Weights, x: &Tensor) -> Result<(Tensor, Saved)> {
        norm::norm(x, self.kind, self.weight.of(weights), self.bias(weights))
    }

    /// The output once more.
    pub(super) fn output(&self, weights: Weights, saved: &Saved) -> Result<Tensor> {
        norm::output(saved, self.weight.of(weights), self.bias(weights))
    }

    /// Adds the gradients of weight and bias to `into`, as far as these are trained, and that of the
    /// input to `dx`.
    pub(super) fn backward(
        &self,
        weights: Weights,
        dy: &Tensor,
        saved: &Saved,
        into: &mut Params,
        dx: &mut Tensor,
    ) -> Result<()> {
        let gradients = self.weight.gradients(self.bias, into);
        norm::backward(dy, saved, self.weight.of(weights), gradients, dx)
    }

    fn bias<'a>(&self, weights: Weights<'a>) -> Option<&'a Tensor> {
        self.bias.map(|bias| bias.of(weights))
    }
}
