//! A linear layer by its places in the flat buffers, and what is computed with it.

use candle_core::{DType, Tensor};

use super::parameters::{Layout, Parameter, Params, Weights};
use crate::error::Result;
use crate::kernels::{Dst, linear, row_invariant};

/// `y = x W^T + b`: a weight (out, in) with its bias (out), if it has one. Gradients of frozen
/// parameters are not computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linear {
    weight: Parameter,
    bias: Option<Parameter>,
}

impl Linear {
    /// The layer of that name.
    ///
    /// # Panics
    /// If the layout has no such layer.
    pub(super) fn new(layout: &Layout, name: &str) -> Self {
        Self {
            weight: layout.parameter(&format!("{name}.weight")),
            bias: layout.find_parameter(&format!("{name}.bias")),
        }
    }

    /// Whether any of it is trained.
    pub(super) fn trainable(&self) -> bool {
        self.weight.trainable() || self.bias.is_some_and(|bias| bias.trainable())
    }

    /// Elements of the weight, once for each matmul of the backward pass that is left out; `input` is
    /// whether the gradient of the input is computed.
    pub(super) fn skipped(&self, layout: &Layout, input: bool) -> usize {
        let left_out = usize::from(!self.weight.trainable()) + usize::from(!input);
        left_out * self.weight.elements(layout)
    }

    pub(super) fn weight<'a>(&self, weights: Weights<'a>) -> &'a Tensor {
        self.weight.of(weights)
    }

    pub(super) fn bias<'a>(&self, weights: Weights<'a>) -> Option<&'a Tensor> {
        self.bias.map(|bias| bias.of(weights))
    }

    /// `x` (rows, in) -> (rows, out).
    pub(super) fn forward(&self, weights: Weights, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.weight(weights), self.bias(weights));
        match weights.row_invariant {
            true => row_invariant::linear(x, weight, bias),
            false => linear::linear(x, weight, bias, weight.dtype(), weights.precision),
        }
    }

    /// As [`Self::forward`], into columns of a wider tensor.
    pub(super) fn forward_into(&self, weights: Weights, x: &Tensor, y: Dst) -> Result<()> {
        let (weight, bias) = (self.weight(weights), self.bias(weights));
        match weights.row_invariant {
            true => row_invariant::linear_into(x, weight, bias, y),
            false => linear::linear_into(x, weight, bias, y, weights.precision),
        }
    }

    /// Adds `x W^T`, without the bias, to `y` (rows, out).
    pub(super) fn add_product(&self, weights: Weights, x: &Tensor, y: &mut Tensor) -> Result<()> {
        match weights.row_invariant {
            true => row_invariant::linear_add(x, self.weight(weights), y),
            false => linear::linear_add(x, self.weight(weights), y, weights.precision),
        }
    }

    /// Adds the gradients of weight and bias to `into`, as far as these are trained.
    pub(super) fn backward_parameters(
        &self,
        weights: Weights,
        dy: &Tensor,
        x: &Tensor,
        into: &mut Params,
    ) -> Result<()> {
        if let Some(dweight) = self.weight.gradient(into) {
            linear::backward_weight(dy, x, dweight, weights.precision)?;
        }
        match self.bias.and_then(|bias| bias.gradient(into)) {
            Some(dbias) => linear::backward_bias(dy, dbias),
            None => Ok(()),
        }
    }

    /// The gradient of the input, (rows, in), in the dtype of the weights.
    pub(super) fn backward_input(&self, weights: Weights, dy: &Tensor) -> Result<Tensor> {
        let weight = self.weight(weights);
        linear::backward_input(dy, weight, weight.dtype(), weights.precision)
    }
}

/// Adds the parameter gradients of several layers that read one input, and gives the gradient of that
/// input in `dtype` where it is `wanted`. `x` makes the input, which only trained layers need.
pub(super) fn backward_shared_input(
    layers: &[Linear],
    weights: Weights,
    dy: &[Tensor],
    x: impl FnOnce() -> Result<Tensor>,
    wanted: Option<DType>,
    into: &mut Params,
) -> Result<Option<Tensor>> {
    if layers.iter().any(Linear::trainable) {
        let x = x()?;
        for (layer, dy) in layers.iter().zip(dy) {
            layer.backward_parameters(weights, dy, &x, into)?;
        }
    }
    let Some(dtype) = wanted else {
        return Ok(None);
    };
    let precision = weights.precision;
    let mut dx = linear::backward_input(&dy[0], layers[0].weight(weights), dtype, precision)?;
    for (layer, dy) in layers.iter().zip(dy).skip(1) {
        linear::backward_input_add(dy, layer.weight(weights), &mut dx, precision)?;
    }
    Ok(Some(dx))
}
