//! The low-rank product of a layer, by its places in the flat buffers.

use std::ops::Range;

use candle_core::Tensor;

use super::parameters::{Layout, Parameter, Params, Weights, rows_of};
use crate::error::Result;
use crate::kernels::dora::{self, Factors};
use crate::kernels::dropout::{self, Dropout};
use crate::kernels::{Dst, elementwise, linear};

/// `scale (x A^T) B^T`: A is (rank, in), B (out, rank). In training some elements of `x` are dropped.
#[derive(Debug, Clone)]
pub(super) struct LowRankProduct {
    a: Parameter,
    b: Parameter,
    /// (out): what rows of `W + scale B A` are scaled to.
    magnitude: Option<Parameter>,
    scale: f64,
    /// Has layers drop elements of their own.
    salt: u64,
    /// The rows of B and of the magnitudes that are this layer's; all where `None`.
    rows: Option<Range<usize>>,
}

impl LowRankProduct {
    /// That of the layer of this name, if it has one.
    pub(super) fn find(layout: &Layout, layer: &str) -> Option<Self> {
        let low_rank = layout.low_rank(layer)?;
        // FNV-1a.
        let salt = layer.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Some(Self {
            a: layout.parameter(&low_rank.a()),
            b: layout.parameter(&low_rank.b()),
            magnitude: layout.find_parameter(&low_rank.magnitude()),
            scale: low_rank.scale,
            salt,
            rows: None,
        })
    }

    /// That of these rows of the layer.
    pub(super) fn of_rows(&self, rows: Range<usize>) -> Self {
        Self {
            rows: Some(rows),
            ..self.clone()
        }
    }

    /// Whether rows of the weight are scaled to magnitudes.
    pub(super) fn has_magnitude(&self) -> bool {
        self.magnitude.is_some()
    }

    /// What columns of the output are scaled by, where rows of `weight` (out, in) are scaled to magnitudes.
    pub(super) fn factors(&self, weights: Weights, weight: &Tensor) -> Result<Option<Factors>> {
        let Some(magnitude) = self.magnitude else {
            return Ok(None);
        };
        let a = &weights.exact(self.a, None)?;
        let b = &weights.exact(self.b, self.rows.as_ref())?;
        let magnitude = self.part(magnitude.of(weights))?;
        dora::factors(weight, (a, b, self.scale), &magnitude).map(Some)
    }

    /// Adds the gradient of the magnitudes, from that of the output and what was scaled, (rows, out) each.
    pub(super) fn backward_magnitude(
        &self,
        dy: &Tensor,
        (z, factors): (&Tensor, &Factors),
        into: &mut Params,
    ) -> Result<()> {
        let to = self
            .magnitude
            .map(|magnitude| self.gradient(magnitude, into));
        match to.transpose()?.flatten() {
            Some(to) => dora::add_dots(dy, z, &factors.norm, to),
            None => Ok(()),
        }
    }

    /// Adds the product to `y` (rows, out).
    pub(super) fn add(&self, weights: Weights, x: &Tensor, y: Dst) -> Result<()> {
        let u = self.inner(weights, &self.read(weights, x)?)?;
        let b = weights.operand(self.b, self.rows.as_ref())?;
        b.linear_add(weights, &u, y)
    }

    /// Adds the gradients of A and B, from that of the output.
    pub(super) fn backward_parameters(
        &self,
        weights: Weights,
        dy: &Tensor,
        x: &Tensor,
        into: &mut Params,
    ) -> Result<()> {
        let x = &self.read(weights, x)?;
        if let Some(db) = self.gradient(self.b, into)? {
            let u = self.inner(weights, x)?;
            linear::backward_weight(dy, &u, db, weights.precision)?;
        }
        if let Some(da) = self.a.gradient(into) {
            let g = self.backward_inner(weights, dy)?;
            linear::backward_weight(&g, x, da, weights.precision)?;
        }
        Ok(())
    }

    /// Adds the gradient of the input to `dx` (rows, in).
    pub(super) fn backward_input_add(&self, weights: Weights, dy: &Tensor, dx: Dst) -> Result<()> {
        let (g, a) = (self.backward_inner(weights, dy)?, self.a.of(weights));
        match self.dropout(weights) {
            None => linear::backward_input_add(&g, a, dx, weights.precision),
            Some(dropout) => {
                let read = linear::backward_input(&g, a, dx.dtype(), weights.precision)?;
                dropout::add_dropped(&read, dropout, dx)
            }
        }
    }

    /// What the product reads of the layer's input.
    fn read(&self, weights: Weights, x: &Tensor) -> Result<Tensor> {
        match self.dropout(weights) {
            Some(dropout) if x.is_contiguous() => dropout::dropped(x, dropout),
            Some(dropout) => dropout::dropped(&elementwise::copy(x)?, dropout),
            None => Ok(x.clone()),
        }
    }

    fn dropout<'a>(&self, weights: Weights<'a>) -> Option<Dropout<'a>> {
        let dropout = weights.dropout?;
        Some(Dropout {
            seed: dropout.seed ^ self.salt,
            ..dropout
        })
    }

    /// `scale x A^T`, (rows, rank).
    fn inner(&self, weights: Weights, x: &Tensor) -> Result<Tensor> {
        let a = weights.operand(self.a, None)?;
        let mut u = a.linear(weights, x, None, weights.dtype())?;
        elementwise::scale(&mut u, self.scale)?;
        Ok(u)
    }

    /// `scale dy B`, (rows, rank).
    fn backward_inner(&self, weights: Weights, dy: &Tensor) -> Result<Tensor> {
        let b = self.part(self.b.of(weights))?;
        let mut g = linear::backward_input(dy, &b, weights.dtype(), weights.precision)?;
        elementwise::scale(&mut g, self.scale)?;
        Ok(g)
    }

    fn part(&self, whole: &Tensor) -> candle_core::Result<Tensor> {
        rows_of(whole, self.rows.as_ref())
    }

    fn gradient<'a>(&self, parameter: Parameter, into: &'a mut Params) -> Result<Option<Dst<'a>>> {
        parameter.gradient_rows(into, self.rows.as_ref())
    }
}
