//! A branch of the residual stream: how it reads the stream, and how what it gives is added to it.
//!
//! *Why*: families put norms before attention and the feed-forward network, after them, or both, and some
//! scale what is added. A branch without any of what comes after is added to the stream in place, by
//! its last matmul.

use candle_core::Tensor;

use super::arch::Architecture;
use super::linear::Linear;
use super::norm::NormLayer;
use super::parameters::{Layout, Params, Weights};
use crate::error::Result;
use crate::kernels::{elementwise, norm};

/// A branch by its places in the flat buffers.
#[derive(Debug)]
pub(super) struct Branch {
    /// Norm of the branch's input, if any.
    norm: Option<NormLayer>,
    /// Norm of the branch's output, before the residual addition, if any.
    post_norm: Option<NormLayer>,
    /// Factor on the output.
    multiplier: f64,
}

/// What the backward pass needs of a branch's input.
pub(super) enum Read {
    Normed(norm::Saved),
    /// The input itself, (rows, hidden).
    Plain(Tensor),
}

impl Branch {
    /// That of a layer, with the names of its norms before and after.
    pub(super) fn new(
        arch: &Architecture,
        layout: &Layout,
        layer: usize,
        [before, after]: [&Option<String>; 2],
    ) -> Self {
        let norm = |part: &String| NormLayer::new(layout, arch.norm, &arch.block_name(layer, part));
        Self {
            norm: before.as_ref().map(norm),
            post_norm: after.as_ref().map(norm),
            multiplier: arch.multipliers.residual,
        }
    }

    /// Whether its norm before is trained.
    pub(super) fn norm_trainable(&self) -> bool {
        self.norm.as_ref().is_some_and(NormLayer::trainable)
    }

    /// Whether its norm after is trained.
    pub(super) fn post_norm_trainable(&self) -> bool {
        self.post_norm.as_ref().is_some_and(NormLayer::trainable)
    }

    /// What the branch computes with, (rows, hidden), from the stream `x` (rows, hidden).
    pub(super) fn read(&self, weights: Weights, x: &Tensor) -> Result<(Tensor, Read)> {
        match &self.norm {
            Some(norm) => {
                let (h, saved) = norm.forward(weights, x)?;
                Ok((h, Read::Normed(saved)))
            }
            None => {
                let h = elementwise::operand(x, weights.params.flat())?;
                Ok((h.clone(), Read::Plain(h)))
            }
        }
    }

    /// What [`Self::read`] gave, once more.
    pub(super) fn read_again(&self, weights: Weights, read: &Read) -> Result<Tensor> {
        match (read, &self.norm) {
            (Read::Normed(saved), Some(norm)) => norm.output(weights, saved),
            (Read::Plain(h), _) => Ok(h.clone()),
            (Read::Normed(_), None) => unreachable!("a branch without a norm keeps its input"),
        }
    }

    /// Adds the gradient of the stream to `dx` (rows, hidden), given that of what [`Self::read`] gave,
    /// and that of the norm to `into`.
    pub(super) fn backward_read(
        &self,
        weights: Weights,
        dh: &Tensor,
        read: &Read,
        into: &mut Params,
        dx: &mut Tensor,
    ) -> Result<()> {
        match (read, &self.norm) {
            (Read::Normed(saved), Some(norm)) => norm.backward(weights, dh, saved, into, dx),
            (Read::Plain(_), _) => elementwise::add_assign(dx, dh),
            (Read::Normed(_), None) => unreachable!("a branch without a norm keeps its input"),
        }
    }

    /// Whether what the branch gives is added as it is.
    fn is_plain(&self) -> bool {
        self.post_norm.is_none() && self.multiplier == 1.0
    }

    /// What the branch's last projections, `ends`, add their products to, (rows, hidden): the stream `x`
    /// where nothing comes after them. It begins with their biases.
    pub(super) fn start<'a>(
        &self,
        weights: Weights,
        x: &Tensor,
        ends: impl IntoIterator<Item = Option<&'a Linear>>,
    ) -> Result<Tensor> {
        let biases: Vec<Option<Tensor>> = ends
            .into_iter()
            .flatten()
            .map(|end| end.bias(weights))
            .collect::<Result<_>>()?;
        let biases: Vec<&Tensor> = biases.iter().flatten().collect();
        if self.is_plain() {
            return elementwise::residual(x, &biases);
        }
        let zeros = elementwise::zeros(x.dims2()?, x)?;
        match biases.is_empty() {
            true => Ok(zeros),
            false => elementwise::residual(&zeros, &biases),
        }
    }

    /// The stream after the branch, from the stream `x` before it and what [`Self::start`] has become;
    /// and what the norm after it keeps.
    pub(super) fn end(
        &self,
        weights: Weights,
        x: &Tensor,
        given: Tensor,
    ) -> Result<(Tensor, Option<norm::Saved>)> {
        if self.is_plain() {
            return Ok((given, None));
        }
        let (mut given, saved) = match &self.post_norm {
            Some(norm) => {
                let (y, saved) = norm.forward(weights, &given)?;
                (y, Some(saved))
            }
            None => (given, None),
        };
        self.scale(&mut given)?;
        let mut y = elementwise::residual(x, &[])?;
        elementwise::add_assign(&mut y, &given)?;
        Ok((y, saved))
    }

    /// The gradient of what the branch gave, in the dtype of `like`, from that of the stream after it; adds
    /// that of the norm after it.
    pub(super) fn backward_end(
        &self,
        weights: Weights,
        dy: &Tensor,
        saved: Option<&norm::Saved>,
        like: &Tensor,
        into: &mut Params,
    ) -> Result<Tensor> {
        if self.is_plain() {
            return elementwise::operand(dy, like);
        }
        let mut dgiven = elementwise::copy(dy)?;
        self.scale(&mut dgiven)?;
        if let (Some(norm), Some(saved)) = (&self.post_norm, saved) {
            let mut dx = dgiven.zeros_like()?;
            norm.backward(weights, &dgiven, saved, into, &mut dx)?;
            dgiven = dx;
        }
        elementwise::operand(&dgiven, like)
    }

    fn scale(&self, x: &mut Tensor) -> Result<()> {
        match self.multiplier == 1.0 {
            true => Ok(()),
            false => elementwise::scale(x, self.multiplier),
        }
    }
}

#[cfg(test)]
impl Read {
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Normed(saved) => saved.tensors().to_vec(),
            Self::Plain(h) => vec![h],
        }
    }
}
