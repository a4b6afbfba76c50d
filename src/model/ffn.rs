//! The feed-forward network of a block.

use candle_core::{DType, Tensor};

use super::arch::{self, Activation, Architecture, GateUp};
use super::linear::{Linear, backward_shared_input};
use super::parameters::{Layout, Params, Weights};
use crate::error::Result;
use crate::kernels::activation;

mod experts;
mod routing;

use self::experts::Experts;

/// A feed-forward network by its places in the flat buffers.
#[derive(Debug)]
pub(super) enum Ffn {
    /// `down(activation(up(x)))`.
    Plain {
        kind: Activation,
        up: [Linear; 1],
        down: Linear,
    },
    /// `down(activation(gate(x)) * up(x))`.
    Gated {
        kind: Activation,
        /// Gate and up, which read the same input.
        gate_up: [Linear; 2],
        down: Linear,
    },
    /// A mixture of experts.
    Experts(Experts),
}

/// What the backward pass needs: the inputs of the activation, (rows, width) each; of experts also where
/// tokens went.
#[derive(Debug)]
pub(super) enum Activations {
    Plain(Activation, Tensor),
    Gated(Activation, [Tensor; 2]),
    Experts(experts::Activations),
}

/// The gradients of what [`Ffn::backward_inputs`] reads.
#[derive(Debug)]
pub(super) enum InputGradients {
    /// Of the outputs of the projections that read the network's input, (rows, width) each.
    Dense(Vec<Tensor>),
    Experts(experts::InputGradients),
}

impl Ffn {
    /// That of a layer.
    pub(super) fn new(arch: &Architecture, layout: &Layout, layer: usize) -> Self {
        if let Some(experts) = arch.experts(layer) {
            return Self::Experts(Experts::new(arch, experts, layout, layer));
        }
        let linear = |part: &String| Linear::new(layout, &arch.block_name(layer, part));
        match &arch.ffn {
            arch::Ffn::Plain { kind, up, down, .. } => Self::Plain {
                kind: *kind,
                up: [linear(up)],
                down: linear(down),
            },
            arch::Ffn::Gated {
                kind,
                width,
                gate_up,
                down,
                ..
            } => Self::Gated {
                kind: *kind,
                gate_up: match gate_up {
                    GateUp::Separate(parts) => parts.each_ref().map(linear),
                    GateUp::Stacked(part) => {
                        Linear::stacked(layout, &arch.block_name(layer, part), [*width; 2])
                    }
                },
                down: linear(down),
            },
        }
    }

    /// The projections that read the network's input; of experts the router.
    fn inputs(&self) -> &[Linear] {
        match self {
            Self::Plain { up, .. } => up,
            Self::Gated { gate_up, .. } => gate_up,
            Self::Experts(experts) => std::slice::from_ref(experts.router()),
        }
    }

    /// The projections to the residual stream.
    fn outputs(&self) -> impl Iterator<Item = &Linear> {
        let (dense, experts) = match self {
            Self::Plain { down, .. } | Self::Gated { down, .. } => (Some(down), None),
            Self::Experts(experts) => (None, Some(experts.outputs())),
        };
        dense.into_iter().chain(experts.into_iter().flatten())
    }

    /// The projection to the residual stream, where there is one for all rows.
    pub(super) fn last(&self) -> Option<&Linear> {
        match self {
            Self::Plain { down, .. } | Self::Gated { down, .. } => Some(down),
            Self::Experts(_) => None,
        }
    }

    /// Whether any of it is trained.
    pub(super) fn trainable(&self) -> bool {
        self.trainable_before_outputs() || self.outputs().any(Linear::trainable)
    }

    /// Whether any of it is trained but the projections to the residual stream.
    pub(super) fn trainable_before_outputs(&self) -> bool {
        let inputs = self.inputs().iter().any(Linear::trainable);
        inputs || matches!(self, Self::Experts(experts) if experts.trainable_inputs())
    }

    /// The bytes of the matrices that a token reads.
    pub(super) fn bytes(&self, weights: Weights) -> u64 {
        match self {
            Self::Experts(experts) => experts.bytes(weights),
            _ => {
                let all = self.inputs().iter().chain(self.outputs());
                all.map(|linear| linear.bytes(weights)).sum()
            }
        }
    }

    /// Elements of the weights that a token uses, once for each matmul of the backward pass that is
    /// left out; `input` and `inner` are whether the gradients of the network's input and of the
    /// activation's inputs are computed.
    pub(super) fn skipped(&self, layout: &Layout, input: bool, inner: bool) -> usize {
        let of = |linear: &Linear, wanted| linear.skipped(layout, wanted);
        match self {
            Self::Experts(experts) => experts.skipped(layout, input, inner),
            _ => {
                let inputs: usize = self.inputs().iter().map(|linear| of(linear, input)).sum();
                inputs
                    + self
                        .outputs()
                        .map(|linear| of(linear, inner))
                        .sum::<usize>()
            }
        }
    }

    /// Adds the network's output, without the bias of [`Self::last`], to `y` (rows, hidden); `h`
    /// (rows, hidden) is its input.
    pub(super) fn forward(
        &self,
        weights: Weights,
        h: &Tensor,
        y: &mut Tensor,
    ) -> Result<Activations> {
        let apply = |linear: &Linear| linear.forward(weights, h);
        let (activations, down) = match self {
            Self::Plain {
                kind,
                up: [up],
                down,
            } => (Activations::Plain(*kind, apply(up)?), down),
            Self::Gated {
                kind,
                gate_up: [gate, up],
                down,
            } => {
                let gate_up = [apply(gate)?, apply(up)?];
                (Activations::Gated(*kind, gate_up), down)
            }
            Self::Experts(experts) => {
                return experts.forward(weights, h, y).map(Activations::Experts);
            }
        };
        down.add_product(weights, &activations.hidden()?, y)?;
        Ok(activations)
    }

    /// Adds the gradients of the projections to the residual stream, given that of the network's output,
    /// and gives those of the activation's inputs where they are `wanted`.
    pub(super) fn backward_down(
        &self,
        weights: Weights,
        dout: &Tensor,
        activations: &Activations,
        wanted: bool,
        into: &mut Params,
    ) -> Result<Option<InputGradients>> {
        let down = match (self, activations) {
            (Self::Plain { down, .. } | Self::Gated { down, .. }, _) => down,
            (Self::Experts(experts), Activations::Experts(activations)) => {
                let gradients = experts.backward_down(weights, dout, activations, wanted, into)?;
                return Ok(gradients.map(InputGradients::Experts));
            }
            (Self::Experts(_), _) => unreachable!("activations of another network"),
        };
        if !wanted {
            if down.trainable() {
                down.backward_parameters(weights, dout, &activations.hidden()?, into)?;
            }
            return Ok(None);
        }
        let dhidden = down.backward_input(weights, dout)?;
        let (hidden, dinputs) = activations.backward(dhidden)?;
        down.backward_parameters(weights, dout, &hidden, into)?;
        Ok(Some(InputGradients::Dense(dinputs)))
    }

    /// Adds the gradients of the projections that read the network's input, given what
    /// [`Self::backward_down`] gave, and gives that of the network's input in `dtype` where it is wanted;
    /// `h` makes that input.
    pub(super) fn backward_inputs(
        &self,
        weights: Weights,
        gradients: &InputGradients,
        h: impl FnOnce() -> Result<Tensor>,
        wanted: Option<DType>,
        into: &mut Params,
    ) -> Result<Option<Tensor>> {
        match (self, gradients) {
            (Self::Experts(experts), InputGradients::Experts(gradients)) => {
                experts.backward_inputs(weights, gradients, h, wanted, into)
            }
            (_, InputGradients::Dense(dinputs)) => {
                backward_shared_input(self.inputs(), weights, dinputs, h, wanted, into)
            }
            (_, InputGradients::Experts(_)) => unreachable!("gradients of another network"),
        }
    }
}

impl Activations {
    /// The activation's output, (rows, width).
    fn hidden(&self) -> Result<Tensor> {
        match self {
            Self::Plain(kind, up) => activation::apply(*kind, up),
            Self::Gated(kind, gate_up) => gated(*kind, gate_up),
            Self::Experts(_) => unreachable!("experts compute it by themselves"),
        }
    }

    /// The activation's output once more, and the gradient of each of its inputs; works in the memory
    /// of `dy`, the gradient of the output.
    fn backward(&self, mut dy: Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        Ok(match self {
            Self::Plain(kind, up) => {
                let y = activation::apply_backward(*kind, &mut dy, up)?;
                (y, vec![dy])
            }
            Self::Gated(kind, gate_up) => {
                let (y, dinputs) = gated_backward(*kind, dy, gate_up)?;
                (y, dinputs.into())
            }
            Self::Experts(_) => unreachable!("experts compute it by themselves"),
        })
    }

    #[cfg(test)]
    pub(super) fn tensors(&self) -> &[Tensor] {
        match self {
            Self::Plain(_, up) => std::slice::from_ref(up),
            Self::Gated(_, gate_up) => gate_up,
            Self::Experts(activations) => activations.tensors(),
        }
    }
}

/// A gate's activation times what it scales.
fn gated(kind: Activation, [gate, up]: &[Tensor; 2]) -> Result<Tensor> {
    activation::gated(kind, gate, up)
}

/// [`gated`] once more, and the gradients of gate and up; works in the memory of `dy`.
fn gated_backward(
    kind: Activation,
    mut dy: Tensor,
    [gate, up]: &[Tensor; 2],
) -> Result<(Tensor, [Tensor; 2])> {
    let (y, dgate) = activation::gated_backward(kind, &mut dy, gate, up)?;
    Ok((y, [dgate, dy]))
}
