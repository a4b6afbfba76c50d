//! A mixture of experts: each token goes through a few of many feed-forward networks.
//!
//! Tokens are sorted by expert, so that each expert's matmuls are of its tokens alone, without padding. On
//! a GPU one launch for all experts would save launches where each has few tokens; the sums would be
//! the same.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::routing::Routing;
use crate::error::Result;
use crate::kernels::device::{download_wide, upload_wide, zeros};
use crate::kernels::embedding::{self, Ids};
use crate::kernels::{Dst, elementwise, weighted};
use crate::model::arch::{self, Activation, Architecture, ExpertWeights};
use crate::model::linear::Linear;
use crate::model::parameters::{Layout, Params, Weights};

/// The experts of a layer by their places in the flat buffers.
#[derive(Debug)]
pub(in crate::model) struct Experts {
    router: Linear,
    experts: Vec<Expert>,
    kind: Activation,
    width: usize,
    per_token: usize,
    normalized: bool,
}

#[derive(Debug)]
struct Expert {
    /// Gate and up.
    gate_up: [Linear; 2],
    down: Linear,
}

/// What the backward pass needs: where tokens went, and the inputs of the activation, (places, width)
/// each, sorted by expert.
#[derive(Debug)]
pub(in crate::model) struct Activations {
    routing: Routing,
    gate_up: [Tensor; 2],
}

/// The gradients of the inputs of the activation, (places, width) each, and of the router's logits,
/// (rows, experts).
#[derive(Debug)]
pub(in crate::model) struct InputGradients {
    gate_up: [Tensor; 2],
    logits: Tensor,
    ranges: Vec<Range<usize>>,
    tokens: Vec<u32>,
}

impl Experts {
    /// Those of a layer.
    pub(super) fn new(
        arch: &Architecture,
        experts: &arch::Experts,
        layout: &Layout,
        layer: usize,
    ) -> Self {
        let name = |part: &str| arch.block_name(layer, part);
        let (width, hidden) = (experts.width, arch.hidden_size);
        let expert = |at: usize| match &experts.weights {
            ExpertWeights::Separate { prefix, parts } => {
                let linear = |part| Linear::new(layout, &name(&format!("{prefix}{at}.{part}")));
                let [gate, up, down] = parts.each_ref().map(linear);
                Expert {
                    gate_up: [gate, up],
                    down,
                }
            }
            ExpertWeights::Fused { gate_up, down } => {
                let first = 2 * at * width;
                let rows = [first..first + width, first + width..first + 2 * width];
                let part = name(gate_up);
                Expert {
                    gate_up: rows.map(|rows| Linear::rows_of(layout, &part, rows)),
                    down: Linear::rows_of(layout, &name(down), at * hidden..(at + 1) * hidden),
                }
            }
        };
        Self {
            router: Linear::new(layout, &name(&experts.router)),
            experts: (0..experts.count).map(expert).collect(),
            kind: experts.kind,
            width,
            per_token: experts.per_token,
            normalized: experts.normalized,
        }
    }

    pub(super) fn router(&self) -> &Linear {
        &self.router
    }

    /// The projections to the residual stream.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &Linear> {
        self.experts.iter().map(|expert| &expert.down)
    }

    fn inputs(&self) -> impl Iterator<Item = &Linear> {
        self.experts.iter().flat_map(|expert| &expert.gate_up)
    }

    /// Whether any projection of an expert that reads the network's input is trained.
    pub(super) fn trainable_inputs(&self) -> bool {
        self.inputs().any(Linear::trainable)
    }

    /// The bytes of the matrices that one token reads.
    pub(super) fn bytes(&self, weights: Weights) -> u64 {
        let of = |linear: &Linear| linear.bytes(weights);
        let Expert { gate_up, down } = &self.experts[0];
        let each: u64 = gate_up.iter().chain([down]).map(of).sum();
        of(&self.router) + self.per_token as u64 * each
    }

    /// As of [`super::Ffn::skipped`]: of an expert's weights the share that a token uses on average.
    pub(super) fn skipped(&self, layout: &Layout, input: bool, inner: bool) -> usize {
        let inputs: usize = self
            .inputs()
            .map(|linear| linear.skipped(layout, input))
            .sum();
        let outputs = self.outputs().map(|linear| linear.skipped(layout, inner));
        let all = inputs + outputs.sum::<usize>();
        self.router.skipped(layout, input) + all * self.per_token / self.experts.len()
    }

    /// Adds the network's output to `y` (rows, hidden); `h` (rows, hidden) is its input.
    pub(super) fn forward(
        &self,
        weights: Weights,
        h: &Tensor,
        y: &mut Tensor,
    ) -> Result<Activations> {
        let logits = download_wide(&self.router.forward(weights, h)?)?;
        let count = self.experts.len();
        let routing = Routing::new(logits, count, self.per_token, self.normalized);
        let tokens = Ids::new(&routing.tokens(), h.device())?;
        let sorted = embedding::gather(h, &tokens, h.dtype())?;
        let places = sorted.dim(0)?;
        let mut gate_up = [
            elementwise::zeros((places, self.width), h)?,
            elementwise::zeros((places, self.width), h)?,
        ];
        for (expert, range) in self.used(routing.ranges()) {
            let x = rows(&sorted, range)?;
            for (linear, to) in expert.gate_up.iter().zip(&mut gate_up) {
                linear.forward_into(weights, &x, rows_of(to, range)?)?;
            }
        }
        drop(sorted);
        let hidden = super::gated(self.kind, &gate_up)?;
        let mut outputs = elementwise::zeros((places, h.dim(1)?), y)?;
        for (expert, range) in self.used(routing.ranges()) {
            let x = rows(&hidden, range)?;
            let mut to = outputs.narrow(0, range.start, range.len())?;
            expert.down.add_product(weights, &x, &mut to)?;
        }
        weighted::weigh(&mut outputs, &routing.weights())?;
        embedding::scatter_add(&outputs, &tokens, y)?;
        Ok(Activations { routing, gate_up })
    }

    /// Adds the gradients of the projections to the residual stream, given that of the network's output,
    /// `dout` (rows, hidden), and gives those of the activation's inputs and the router's logits where
    /// they are `wanted`.
    pub(super) fn backward_down(
        &self,
        weights: Weights,
        dout: &Tensor,
        activations: &Activations,
        wanted: bool,
        into: &mut Params,
    ) -> Result<Option<InputGradients>> {
        let Activations { routing, gate_up } = activations;
        let tokens = routing.tokens();
        let ids = Ids::new(&tokens, dout.device())?;
        let dsorted = embedding::gather(dout, &ids, dout.dtype())?;
        let shares = routing.weights();
        if !wanted {
            if self.outputs().any(Linear::trainable) {
                let mut hidden = super::gated(self.kind, gate_up)?;
                weighted::weigh(&mut hidden, &shares)?;
                self.backward_outputs(weights, routing, &dsorted, &hidden, into)?;
            }
            return Ok(None);
        }
        // Of an expert's output before its weight.
        let mut dhidden = elementwise::zeros((dsorted.dim(0)?, self.width), &gate_up[0])?;
        for (expert, range) in self.used(routing.ranges()) {
            let dx = expert
                .down
                .backward_input(weights, &rows(&dsorted, range)?)?;
            assign(&mut dhidden, range, &dx)?;
        }
        let mut hidden = super::gated(self.kind, gate_up)?;
        // The gradient of a weight is the dot product of the expert's output and its gradient, which
        // is that of what the last projection reads.
        let dshares = weighted::dots(&hidden, &dhidden)?;
        weighted::weigh(&mut dhidden, &shares)?;
        weighted::weigh(&mut hidden, &shares)?;
        self.backward_outputs(weights, routing, &dsorted, &hidden, into)?;
        drop((dsorted, hidden));
        let (_, gate_up) = super::gated_backward(self.kind, dhidden, gate_up)?;
        let dlogits = routing.backward(&dshares);
        let shape = (dout.dim(0)?, self.experts.len());
        let mut logits = zeros(shape, dout.dtype(), dout.device())?;
        upload_wide(&dlogits, &mut logits)?;
        Ok(Some(InputGradients {
            gate_up,
            logits,
            ranges: routing.ranges().to_vec(),
            tokens,
        }))
    }

    /// Adds the gradients of the router and of the projections that read the network's input, and gives
    /// that of the network's input in `dtype` where it is wanted; `h` makes that input.
    pub(super) fn backward_inputs(
        &self,
        weights: Weights,
        gradients: &InputGradients,
        h: impl FnOnce() -> Result<Tensor>,
        wanted: Option<DType>,
        into: &mut Params,
    ) -> Result<Option<Tensor>> {
        let InputGradients {
            gate_up,
            logits,
            ranges,
            tokens,
        } = gradients;
        let ids = Ids::new(tokens, logits.device())?;
        if self.router.trainable() || self.trainable_inputs() {
            let h = h()?;
            self.router.backward_parameters(weights, logits, &h, into)?;
            let sorted = embedding::gather(&h, &ids, h.dtype())?;
            drop(h);
            for (expert, range) in self.used(ranges) {
                let x = rows(&sorted, range)?;
                for (linear, dy) in expert.gate_up.iter().zip(gate_up) {
                    linear.backward_parameters(weights, &rows(dy, range)?, &x, into)?;
                }
            }
        }
        let Some(dtype) = wanted else {
            return Ok(None);
        };
        let mut dx = self.router.backward_input_of(weights, logits, dtype)?;
        let mut dsorted = zeros((tokens.len(), dx.dim(1)?), dtype, dx.device())?;
        for (expert, range) in self.used(ranges) {
            for (linear, dy) in expert.gate_up.iter().zip(gate_up) {
                let to = rows_of(&mut dsorted, range)?;
                linear.backward_input_add(weights, &rows(dy, range)?, to)?;
            }
        }
        embedding::scatter_add(&dsorted, &ids, &mut dx)?;
        Ok(Some(dx))
    }

    /// Adds the gradients of the projections to the residual stream; `hidden` (places, width) is what they
    /// read, times its weight.
    fn backward_outputs(
        &self,
        weights: Weights,
        routing: &Routing,
        dsorted: &Tensor,
        hidden: &Tensor,
        into: &mut Params,
    ) -> Result<()> {
        for (expert, range) in self.used(routing.ranges()) {
            let (dy, x) = (rows(dsorted, range)?, rows(hidden, range)?);
            expert.down.backward_parameters(weights, &dy, &x, into)?;
        }
        Ok(())
    }

    /// The experts that have tokens, with their places.
    fn used<'a>(
        &'a self,
        ranges: &'a [Range<usize>],
    ) -> impl Iterator<Item = (&'a Expert, &'a Range<usize>)> {
        let all = self.experts.iter().zip(ranges);
        all.filter(|(_, range)| !range.is_empty())
    }
}

fn rows(x: &Tensor, range: &Range<usize>) -> Result<Tensor> {
    Ok(x.narrow(0, range.start, range.len())?)
}

fn rows_of<'a>(x: &'a mut Tensor, range: &Range<usize>) -> Result<Dst<'a>> {
    Dst::view(x, |x| x.narrow(0, range.start, range.len()))
}

fn assign(to: &mut Tensor, range: &Range<usize>, rows: &Tensor) -> Result<()> {
    let to = Dst::view(to, |x| x.narrow(0, range.start, range.len())?.unsqueeze(0))?;
    elementwise::assign(to, &rows.unsqueeze(0)?)
}

#[cfg(test)]
impl Activations {
    pub(in crate::model) fn tensors(&self) -> &[Tensor] {
        &self.gate_up
    }
}
