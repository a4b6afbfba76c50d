//! A linear layer by its places in the flat buffers, and what is computed with it.
//!
//! Hides that a layer may have a low-rank product beside its weight.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::arch::Architecture;
use super::low_rank::LowRankProduct;
use super::parameters::{Layout, Operand, Parameter, Params, Weights, rows_of};
use crate::error::Result;
use crate::kernels::device::zeros;
use crate::kernels::dora::{self, Factors};
use crate::kernels::{Dst, elementwise, linear};

/// `y = x W^T + b`: a weight (out, in) with its bias (out), if it has one, and perhaps a low-rank product
/// beside the weight. Gradients of frozen parameters are not computed.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    weight: Parameter,
    bias: Option<Parameter>,
    low_rank: Option<Box<LowRankProduct>>,
    /// The rows of weight and bias that are this layer's; all where `None`.
    rows: Option<Range<usize>>,
}

impl Linear {
    /// The layer of that name.
    ///
    /// # Panics
    /// If the layout has no such layer.
    pub(super) fn new(layout: &Layout, name: &str) -> Self {
        Self::with_weight(layout, name, &format!("{name}.weight"))
    }

    /// The head of a model.
    pub(super) fn head(arch: &Architecture, layout: &Layout) -> Self {
        let name = &arch.names.head;
        Self::with_weight(layout, name, &arch.weight_of(name))
    }

    /// The layer of that name, whose weight is that parameter.
    fn with_weight(layout: &Layout, name: &str, weight: &str) -> Self {
        Self {
            weight: layout.parameter(weight),
            bias: layout.find_parameter(&format!("{name}.bias")),
            low_rank: LowRankProduct::find(layout, name).map(Box::new),
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
            let low_rank = whole.low_rank.as_ref();
            Self {
                low_rank: low_rank.map(|low_rank| Box::new(low_rank.of_rows(start..end))),
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
            low_rank: None,
            rows: Some(rows),
        }
    }

    /// Whether any of it is trained.
    pub(super) fn trainable(&self) -> bool {
        self.weight.trainable()
            || self.bias.is_some_and(|bias| bias.trainable())
            || self.low_rank.is_some()
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

    /// (out, in), as a matmul takes it.
    fn weight<'a>(&self, weights: Weights<'a>) -> Result<Operand<'a>> {
        weights.operand(self.weight, self.rows.as_ref())
    }

    /// As [`Self::weight`], as backward passes take it.
    fn dense(&self, weights: Weights) -> Result<Tensor> {
        weights.dense(self.weight, self.rows.as_ref())
    }

    /// The bytes of the weight, as it is stored.
    pub(super) fn bytes(&self, weights: Weights) -> u64 {
        weights.bytes(self.weight, self.rows.as_ref())
    }

    /// (out).
    pub(super) fn bias(&self, weights: Weights) -> Result<Option<Tensor>> {
        let bias = self.bias.map(|bias| self.part(bias.of(weights)));
        Ok(bias.transpose()?)
    }

    /// The layer's rows of a parameter that is not in few bits, or of its gradient.
    fn part(&self, whole: &Tensor) -> candle_core::Result<Tensor> {
        rows_of(whole, self.rows.as_ref())
    }

    fn gradient<'a>(&self, parameter: Parameter, into: &'a mut Params) -> Result<Option<Dst<'a>>> {
        parameter.gradient_rows(into, self.rows.as_ref())
    }

    /// The low-rank product, where these weights have it.
    fn low_rank(&self, weights: Weights) -> Option<&LowRankProduct> {
        self.low_rank.as_deref().filter(|_| weights.adapter)
    }

    /// `x` (rows, in) -> (rows, out), in the dtype of the weights.
    pub(super) fn forward(&self, weights: Weights, x: &Tensor) -> Result<Tensor> {
        self.forward_of(weights, x, weights.dtype())
    }

    /// As [`Self::forward`], in `dtype`.
    pub(super) fn forward_of(&self, weights: Weights, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let bias = self.bias(weights)?;
        let bias = bias.as_ref();
        if let Some((z, factors)) = self.before_scaling(weights, x)? {
            let mut y = zeros(z.dims2()?, dtype, z.device())?;
            dora::add_scaled(&z, &factors.scale, &mut y)?;
            return match bias {
                Some(bias) => elementwise::residual(&y, &[bias]),
                None => Ok(y),
            };
        }
        let mut y = self.weight(weights)?.linear(weights, x, bias, dtype)?;
        self.add_low_rank(weights, x, (&mut y).into())?;
        Ok(y)
    }

    /// As [`Self::forward`], into columns of a wider tensor.
    pub(super) fn forward_into(&self, weights: Weights, x: &Tensor, mut y: Dst) -> Result<()> {
        if self
            .low_rank(weights)
            .is_some_and(LowRankProduct::has_magnitude)
        {
            let source = self.forward(weights, x)?.unsqueeze(0)?;
            return elementwise::assign(y.narrowed(|y| y.unsqueeze(0))?, &source);
        }
        let bias = self.bias(weights)?;
        let weight = self.weight(weights)?;
        weight.linear_into(weights, x, bias.as_ref(), y.reborrow())?;
        self.add_low_rank(weights, x, y)
    }

    /// Adds `x W^T`, with the low-rank product and without the bias, to `y` (rows, out).
    pub(super) fn add_product(&self, weights: Weights, x: &Tensor, y: &mut Tensor) -> Result<()> {
        if let Some((z, factors)) = self.before_scaling(weights, x)? {
            return dora::add_scaled(&z, &factors.scale, y);
        }
        self.weight(weights)?
            .linear_add(weights, x, (&mut *y).into())?;
        self.add_low_rank(weights, x, y.into())
    }

    fn add_low_rank(&self, weights: Weights, x: &Tensor, y: Dst) -> Result<()> {
        match self.low_rank(weights) {
            Some(low_rank) => low_rank.add(weights, x, y),
            None => Ok(()),
        }
    }

    /// Where rows are scaled to magnitudes, what is scaled, `x (W + scale B A)^T` (rows, out), and by
    /// what.
    fn before_scaling(&self, weights: Weights, x: &Tensor) -> Result<Option<(Tensor, Factors)>> {
        let Some(factors) = self.factors(weights)? else {
            return Ok(None);
        };
        let weight = self.weight(weights)?;
        let mut z = weight.linear(weights, x, None, weights.dtype())?;
        self.add_low_rank(weights, x, (&mut z).into())?;
        Ok(Some((z, factors)))
    }

    /// What columns of the output are scaled by, where rows of the weight are scaled to magnitudes.
    fn factors(&self, weights: Weights) -> Result<Option<Factors>> {
        match self.low_rank(weights) {
            Some(low_rank) if low_rank.has_magnitude() => {
                let weight = weights.exact(self.weight, self.rows.as_ref())?;
                low_rank.factors(weights, &weight)
            }
            _ => Ok(None),
        }
    }

    /// The gradient of what is scaled to magnitudes, (rows, out), from that of the output; where nothing
    /// is scaled, that one.
    fn before_scaling_backward(&self, weights: Weights, dy: &Tensor) -> Result<Tensor> {
        match self.factors(weights)? {
            Some(factors) => dora::scaled(dy, &factors.scale),
            None => Ok(dy.clone()),
        }
    }

    /// Adds the gradients of weight, bias and low-rank product to `into`, as far as these are trained.
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
        if let Some(low_rank) = self.low_rank(weights) {
            if let Some((z, factors)) = self.before_scaling(weights, x)? {
                low_rank.backward_magnitude(dy, (&z, &factors), into)?;
            }
            let dz = self.before_scaling_backward(weights, dy)?;
            low_rank.backward_parameters(weights, &dz, x, into)?;
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
        self.backward_input_of(weights, dy, weights.dtype())
    }

    /// As [`Self::backward_input`], in `dtype`.
    pub(super) fn backward_input_of(
        &self,
        weights: Weights,
        dy: &Tensor,
        dtype: DType,
    ) -> Result<Tensor> {
        let dz = &self.before_scaling_backward(weights, dy)?;
        let weight = &self.dense(weights)?;
        let mut dx = linear::backward_input(dz, weight, dtype, weights.precision)?;
        if let Some(low_rank) = self.low_rank(weights) {
            low_rank.backward_input_add(weights, dz, (&mut dx).into())?;
        }
        Ok(dx)
    }

    /// Adds the gradient of the input to `dx` (rows, in).
    pub(super) fn backward_input_add(
        &self,
        weights: Weights,
        dy: &Tensor,
        mut dx: Dst,
    ) -> Result<()> {
        let dz = &self.before_scaling_backward(weights, dy)?;
        let weight = &self.dense(weights)?;
        linear::backward_input_add(dz, weight, dx.reborrow(), weights.precision)?;
        match self.low_rank(weights) {
            Some(low_rank) => low_rank.backward_input_add(weights, dz, dx),
            None => Ok(()),
        }
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
