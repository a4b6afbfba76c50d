//! A weight and its bias by their places in the flat buffer, and what is computed with them.

use candle_core::{DType, Tensor};

use super::arch::Norm;
use super::parameters::{Buffer, Layout};
use crate::error::Result;
use crate::kernels::{Dst, linear, norm, row_invariant};

/// A weight with its bias, if it has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    weight: usize,
    bias: Option<usize>,
}

impl Affine {
    pub(super) fn new(layout: &Layout, name: &str) -> Self {
        let weight = layout.id(&format!("{name}.weight"));
        Self {
            weight,
            bias: layout.find(&format!("{name}.bias")),
        }
    }

    pub(super) fn weight<'a>(&self, buffer: &'a Buffer) -> &'a Tensor {
        buffer.view(self.weight)
    }

    pub(super) fn bias<'a>(&self, buffer: &'a Buffer) -> Option<&'a Tensor> {
        self.bias.map(|id| buffer.view(id))
    }

    pub(super) fn apply(&self, weights: &Buffer, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.weight(weights), self.bias(weights));
        match weights.by_row {
            true => row_invariant::linear(x, weight, bias),
            false => linear::linear(x, weight, bias, weight.dtype(), weights.precision),
        }
    }

    /// Into columns of a wider tensor.
    pub(super) fn apply_into(&self, weights: &Buffer, x: &Tensor, y: &Tensor) -> Result<()> {
        let (weight, bias) = (self.weight(weights), self.bias(weights));
        match weights.by_row {
            true => row_invariant::linear_into(x, weight, bias, y),
            false => linear::linear_into(x, weight, bias, y, weights.precision),
        }
    }

    /// The product alone, without the bias, added to `y`.
    pub(super) fn add_product(&self, weights: &Buffer, x: &Tensor, y: &Tensor) -> Result<()> {
        match weights.by_row {
            true => row_invariant::linear_add(x, self.weight(weights), y),
            false => linear::linear_add(x, self.weight(weights), y, weights.precision),
        }
    }

    /// Adds the gradients of weight and bias.
    pub(super) fn backward_parameters(
        &self,
        weights: &Buffer,
        dy: &Tensor,
        x: &Tensor,
        into: &Buffer,
    ) -> Result<()> {
        linear::backward_weight(dy, x, self.weight(into), weights.precision)?;
        match self.bias(into) {
            Some(dbias) => linear::backward_bias(dy, dbias),
            None => Ok(()),
        }
    }

    /// The gradient of the input.
    pub(super) fn backward_input(&self, weights: &Buffer, dy: &Tensor) -> Result<Tensor> {
        self.backward_input_as(weights, dy, weights.flat().dtype())
    }

    /// The gradient of the input in `dtype`.
    pub(super) fn backward_input_as(
        &self,
        weights: &Buffer,
        dy: &Tensor,
        dtype: DType,
    ) -> Result<Tensor> {
        linear::backward_input(dy, self.weight(weights), dtype, weights.precision)
    }

    /// Adds the gradient of the input to `dx`.
    pub(super) fn backward_input_add(
        &self,
        weights: &Buffer,
        dy: &Tensor,
        dx: &Tensor,
    ) -> Result<()> {
        linear::backward_input_add(dy, self.weight(weights), dx, weights.precision)
    }

    pub(super) fn norm(
        &self,
        weights: &Buffer,
        x: &Tensor,
        kind: Norm,
    ) -> Result<(Tensor, norm::Saved)> {
        norm::norm(x, kind, self.weight(weights), self.bias(weights))
    }

    pub(super) fn norm_output(&self, weights: &Buffer, saved: &norm::Saved) -> Result<Tensor> {
        norm::output(saved, self.weight(weights), self.bias(weights))
    }

    /// Adds the gradients of weight and bias, and that of the input to `dx`.
    pub(super) fn norm_backward(
        &self,
        weights: &Buffer,
        dy: &Tensor,
        saved: &norm::Saved,
        into: &Buffer,
        dx: &Tensor,
    ) -> Result<()> {
        let gradients = (
            Some(self.weight(into).into()),
            self.bias(into).map(Dst::from),
        );
        norm::backward(dy, saved, self.weight(weights), gradients, dx)
    }
}
