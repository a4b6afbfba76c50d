//! A linear layer by its places in the flat buffers, and what is computed with it.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::parameters::{Layout, Parameter, Params, Weights};
use crate::error::Result;
use crate::kernels::{Dst, linear, row_invariant};

/// `y = x W^T + b`: a weight (out, in) with its bias (out), if it has one. Gradients of frozen
/// parameters are not computed.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    weight: Parameter,
    bias: Option<Parameter>,
    /// The rows of weight and bias that are this layer's; all where `None`.
    rows: Option<Range<usize>>,
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
            rows: None,
        }
    }

    /// The layers that lie in that one, each of so many rows, one after the other.
    pub(super) fn stacked<const N: usize>(
        layout: &Layout,
        name: &str,
        rows: [usize; N],
    ) -> [Self; N] {
        let whole = Self::new(layout, name);
        let mut end = 0;
        rows.map(|rows| {
            let start = end;
            end += rows;
            Self {
                rows: Some(start..end),
                ..whole.clone()
            }
        })
    }

    /// The layer of these rows of a parameter whose last dimension is the input, all others the rows.
    ///
    /// # Panics
    /// If the layout has no such parameter.
    pub(super) fn rows_of(layout: &Layout, parameter: &str, rows: Range<usize>) -> Self {
        Self {
            weight: layout.parameter(parameter),
            bias: None,
            rows: Some(rows),
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
        left_out * self.elements(layout)
    }

    /// Elements of the weight.
    pub(super) fn elements(&self, layout: &Layout) -> usize {
        let shape = self.weight.shape(layout);
        let (input, outer) = (shape[shape.len() - 1], &shape[..shape.len() - 1]);
        let rows = self
            .rows
            .as_ref()
            .map_or(outer.iter().product(), ExactSizeIterator::len);
        rows * input
    }

    /// (out, in).
    pub(super) fn weight(&self, weights: Weights) -> Result<Tensor> {
        Ok(self.part(self.weight.of(weights))?)
    }

    /// (out).
    pub(super) fn bias(&self, weights: Weights) -> Result<Option<Tensor>> {
        let bias = self.bias.map(|bias| self.part(bias.of(weights)));
        Ok(bias.transpose()?)
    }

    /// The layer's rows of a parameter or of its gradient.
    fn part(&self, whole: &Tensor) -> candle_core::Result<Tensor> {
        match &self.rows {
            None => Ok(whole.clone()),
            Some(rows) if whole.rank() == 3 => {
                let whole = whole.flatten_to(1)?;
                whole.narrow(0, rows.start, rows.len())
            }
            Some(rows) => whole.narrow(0, rows.start, rows.len()),
        }
    }

    fn gradient<'a>(&self, parameter: Parameter, into: &'a mut Params) -> Result<Option<Dst<'a>>> {
        let whole = parameter.gradient(into);
        whole
            .map(|whole| whole.narrowed(|x| self.part(x)))
            .transpose()
    }

    /// `x` (rows, in) -> (rows, out).
    pub(super) fn forward(&self, weights: Weights, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (&self.weight(weights)?, self.bias(weights)?);
        let bias = bias.as_ref();
        match weights.row_invariant {
            true => row_invariant::linear(x, weight, bias),
            false => linear::linear(x, weight, bias, weight.dtype(), weights.precision),
        }
    }

    /// As [`Self::forward`], into columns of a wider tensor.
    pub(super) fn forward_into(&self, weights: Weights, x: &Tensor, y: Dst) -> Result<()> {
        let (weight, bias) = (&self.weight(weights)?, self.bias(weights)?);
        let bias = bias.as_ref();
        match weights.row_invariant {
            true => row_invariant::linear_into(x, weight, bias, y),
            false => linear::linear_into(x, weight, bias, y, weights.precision),
        }
    }

    /// Adds `x W^T`, without the bias, to `y` (rows, out).
    pub(super) fn add_product(&self, weights: Weights, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let weight = &self.weight(weights)?;
        match weights.row_invariant {
            true => row_invariant::linear_add(x, weight, y),
            false => linear::linear_add(x, weight, y, weights.precision),
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
        if let Some(dweight) = self.gradient(self.weight, into)? {
            linear::backward_weight(dy, x, dweight, weights.precision)?;
        }
        let Some(bias) = self.bias else {
            return Ok(());
        };
        match self.gradient(bias, into)? {
            Some(dbias) => linear::backward_bias(dy, dbias),
            None => Ok(()),
        }
    }

    /// The gradient of the input, (rows, in), in the dtype of the weights.
    pub(super) fn backward_input(&self, weights: Weights, dy: &Tensor) -> Result<Tensor> {
        let dtype = self.weight.of(weights).dtype();
        self.backward_input_of(weights, dy, dtype)
    }

    /// As [`Self::backward_input`], in `dtype`.
    pub(super) fn backward_input_of(
        &self,
        weights: Weights,
        dy: &Tensor,
        dtype: DType,
    ) -> Result<Tensor> {
        linear::backward_input(dy, &self.weight(weights)?, dtype, weights.precision)
    }

    /// Adds the gradient of the input to `dx` (rows, in).
    pub(super) fn backward_input_add(&self, weights: Weights, dy: &Tensor, dx: Dst) -> Result<()> {
        linear::backward_input_add(dy, &self.weight(weights)?, dx, weights.precision)
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
    let mut dx = layers[0].backward_input_of(weights, &dy[0], dtype)?;
    for (layer, dy) in layers.iter().zip(dy).skip(1) {
        layer.backward_input_add(weights, dy, (&mut dx).into())?;
    }
    Ok(Some(dx))
}
